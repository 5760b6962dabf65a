"""How fast it is: each module behind `headwater bench` measures one thing on services that it
starts itself. README.md says which answers what, and what the modules below them do.
"""
