"""`python -m ipss_headend.cli`, the same as `ipss-headend`."""

from ipss_headend.cli import main

main()
