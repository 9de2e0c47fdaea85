import importlib.machinery
import importlib.util
import os
import sys

name, path = "_oxidask_worker", sys.argv[1]
loader = importlib.machinery.ExtensionFileLoader(name, path)
module = importlib.util.module_from_spec(importlib.util.spec_from_file_location(name, path, loader=loader))
loader.exec_module(module)
sys.modules[name] = module
if path.startswith("/proc/self/fd/"):
    # It travelled inside the program; what is loaded stays.
    os.close(int(path.rpartition("/")[2]))
sys.argv = sys.argv[2:]
module.main(sys.argv, os.environ.pop("OXIDASK_WORKER_PLAN", "{}"))
