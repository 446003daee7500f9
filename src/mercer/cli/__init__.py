"""The ``mercer`` command.

================== ===============================================================================
``mercer bundle``  train or load a network, bundle it, write the result and a page about it
``mercer adapt``   fine-tune a text classifier with few trained numbers, and compare ways to do so
``mercer fit``     learn to predict a column of a table by a kernel machine, within a set time
``mercer predict`` what that machine says of the rows of another table
================== ===============================================================================

Each command is a frozen dataclass whose fields are its options; `main` turns the command line
into one of them and runs it. What a user can put right ends in one line on standard error and
exit code 2, an interruption in exit code 130.
"""

from .app import main as main
