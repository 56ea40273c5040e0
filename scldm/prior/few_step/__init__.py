"""A solver of a handful of evaluations, fitted to the velocity field of one trained prior.

A general-purpose solver has to be right for every field, and pays for that with evaluations. Here some ten coefficients
are chosen for one field, by least squares against the end points of a solver with many steps. Predictions of least
squares vary less than what they predict, so the cells would be too much alike. Therefore a linear map of the end points
follows: the smallest one that gives them the means and covariances of the solver with many steps.
"""
