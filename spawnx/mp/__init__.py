"""The only files that touch multiprocessing's private names. Each name was read in CPython 3.10 to 3.15."""
