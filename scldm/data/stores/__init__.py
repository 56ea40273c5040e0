"""Where counts are kept: one file per kind of store, all with the interface of ``base``, chosen by ``registry``."""
