import sys

try:
    from importlib.metadata import version

    release = version("distributed")
except ImportError:
    from distributed import __version__ as release
print(release)
print(sys.prefix)
