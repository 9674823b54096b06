"""Entry of a fork of `ranks` and `launcher`: it becomes `python WORDS` in its own environment, folder and log."""

import gc
import os
import runpy
import sys

gc.freeze()  # its collections need not search what the process that it is a fork of has imported
words, environment, folder, log = globals()["REQUEST"]
output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(output, 1)
os.dup2(output, 2)
os.environ.clear()
os.environ.update(environment)
os.chdir(folder)
if words[0] == "-m":
    sys.argv = words[1:]
    runpy.run_module(words[1], run_name="__main__", alter_sys=True)
else:
    sys.argv = words
    sys.path.insert(0, os.path.dirname(words[0]))
    runpy.run_path(words[0], run_name="__main__")
