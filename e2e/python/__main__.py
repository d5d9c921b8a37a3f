"""Runs the tests as `python -m unittest` does, but names what failed on standard output, where `cargo xtask` looks for it."""

import sys
import unittest

runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2)
result = unittest.main(module=None, testRunner=runner, exit=False).result
# A pattern may match nothing here, because it is meant for the tests in Node.
found = result.testsRun > 0 or "-k" in sys.argv
sys.exit(not (found and result.wasSuccessful()))
