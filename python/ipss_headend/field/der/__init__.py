"""Distributed energy resources: set points that compete, and how a device is kept at what was decided.

Only the part towards devices is here. Who may ask for what, and what a feeder needs, is decided by plugins and by the
command path; see README.md.
"""
