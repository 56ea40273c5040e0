from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

from scldm.data.attribute_set import AttributeSet
from scldm.errors import UserError


@pytest.mark.parametrize(
    ("categorical", "continuous", "sentence"),
    [
        (("celltype",), (), "no obs column 'celltype'; did you mean 'cell_type'"),
        ((), ("agee",), "no obs column 'agee'; did you mean 'age'"),
        (("age",), (), "'age' holds 60 different numbers"),
        (("batch",), ("batch",), "'batch' is named as categorical and as continuous"),
        (("batch", "batch"), (), "'batch' is named twice"),
        ((), ("cell_type",), "'cell_type' holds 'T cell'"),
    ],
)
def test_wrong_columns_are_refused(
    adata: ad.AnnData, categorical: tuple[str, ...], continuous: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        AttributeSet.fit(adata.obs, categorical, continuous, "error")


def test_unlabelled_cells_are_refused_unless_allowed(adata: ad.AnnData) -> None:
    adata.obs.iloc[:4, adata.obs.columns.get_loc("cell_type")] = np.nan
    with pytest.raises(UserError, match="'cell_type' is missing for 4 of 60 cells"):
        AttributeSet.fit(adata.obs, ("cell_type",), (), "error")
    attributes = AttributeSet.fit(adata.obs, ("cell_type",), (), "unlabelled")
    assert sum(attributes.categorical[0].counts) == 56


def test_one_category_is_enough(adata: ad.AnnData) -> None:
    attributes = AttributeSet.fit(adata.obs, ("species",), (), "error")
    assert attributes.categorical[0].categories == ("human",)
