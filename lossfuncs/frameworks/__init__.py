"""Our kernels in other frameworks: each module is a thin shell over the front end, imported only when it is asked for."""
