"""Properties have no deadline of their own: a busy machine is no bug. pytest-timeout ends what hangs."""

from hypothesis import settings

settings.register_profile("house", deadline=None)
settings.load_profile("house")
