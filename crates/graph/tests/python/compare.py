"""Structural comparison of objects that went through different pickles.

Two graphs of objects are the same if they have the same types, values and sharing: an object that
is referred to twice on one side must be one object on the other side as well.
"""

import types


class Different(Exception):
    pass


ATOMS = (int, float, complex, bool, str, bytes, type(None), type(Ellipsis), range, slice)


class Comparison:
    def __init__(self):
        self.left = {}
        self.right = {}
        self.keep = []

    def compare(self, a, b, path=""):
        if a is b:
            return
        if type(a) is not type(b) and not (isinstance(a, type) and isinstance(b, type)):
            raise Different(f"{path}: {type(a)} is not {type(b)}")
        if isinstance(a, ATOMS):
            if a != b and not (a != a and b != b):
                raise Different(f"{path}: {a!r} is not {b!r}")
            return
        if id(a) in self.left or id(b) in self.right:
            if self.left.get(id(a)) != id(b) or self.right.get(id(b)) != id(a):
                if isinstance(a, (tuple, frozenset)) and a == b:
                    return
                if type(a).__module__ == "dask._task_spec":
                    # Never changed, and evaluated once per reference: sharing makes no difference.
                    Comparison().compare(a, b, path)
                    return
                raise Different(f"{path}: shared in one of the two only ({a!r})")
            return
        self.left[id(a)] = id(b)
        self.right[id(b)] = id(a)
        self.keep += [a, b]
        self.parts(a, b, path)

    def parts(self, a, b, path):
        if isinstance(a, (list, tuple)):
            if len(a) != len(b):
                raise Different(f"{path}: {len(a)} items are not {len(b)}")
            for i, (x, y) in enumerate(zip(a, b)):
                self.compare(x, y, f"{path}[{i}]")
            if type(a) in (list, tuple):
                return
        elif isinstance(a, (set, frozenset)):
            try:
                self.compare(sorted(a, key=repr), sorted(b, key=repr), path + "{}")
            finally:
                pass
            return
        elif isinstance(a, dict):
            if list(map(repr, a)) != list(map(repr, b)):
                raise Different(f"{path}: keys {list(a)} are not {list(b)}")
            for (k, x), y in zip(a.items(), b.values()):
                self.compare(x, y, f"{path}[{k!r}]")
            if type(a) is dict:
                return
        elif isinstance(a, types.FunctionType):
            self.function(a, b, path)
            return
        elif isinstance(a, types.CodeType):
            self.code(a, b, path)
            return
        elif isinstance(a, types.CellType):
            empty = object()
            self.compare(cell(a, empty), cell(b, empty), path + ".cell")
            return
        elif isinstance(a, types.ModuleType):
            raise Different(f"{path}: {a} is not {b}")
        elif isinstance(a, type):
            self.klass(a, b, path)
            return
        elif type(a).__module__.split(".")[0] in ("numpy", "pandas"):
            self.array(a, b, path)
            return
        elif isinstance(a, types.MethodType):
            self.compare(a.__func__, b.__func__, path + ".__func__")
            self.compare(a.__self__, b.__self__, path + ".__self__")
            return
        slots = []
        for c in type(a).__mro__:
            names = getattr(c, "__slots__", ())
            slots += [names] if isinstance(names, str) else list(names)
        for name in slots:
            if name in ("__dict__", "__weakref__"):
                continue
            if hasattr(a, name) != hasattr(b, name):
                raise Different(f"{path}.{name} in one of the two only")
            if hasattr(a, name):
                self.compare(getattr(a, name), getattr(b, name), f"{path}.{name}")
        if hasattr(a, "__dict__"):
            x, y = dict(vars(a)), dict(vars(b))
            if type(a).__name__ == "Future":
                # Counts the futures of a process.
                x.pop("_id"), y.pop("_id")
            self.keep += [x, y]
            self.compare(x, y, path + ".__dict__")
        elif not slots:
            x, y = a.__reduce_ex__(4), b.__reduce_ex__(4)
            if isinstance(x, str):
                if x != y:
                    raise Different(f"{path}: {x} is not {y}")
                return
            self.compare(x[:3], y[:3], path + ".__reduce__")

    def function(self, a, b, path):
        self.code(a.__code__, b.__code__, path + ".__code__")
        for name in ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__", "__dict__"):
            self.compare(getattr(a, name), getattr(b, name), f"{path}.{name}")
        self.compare(a.__closure__, b.__closure__, path + ".__closure__")
        for name in names_used(a.__code__):
            if (name in a.__globals__) != (name in b.__globals__):
                raise Different(f"{path}: global {name} in one of the two only")
            if name in a.__globals__:
                x, y = a.__globals__[name], b.__globals__[name]
                self.compare(x, y, f"{path}:{name}")

    def code(self, a, b, path):
        for name in ("co_code", "co_names", "co_varnames", "co_freevars", "co_argcount", "co_name"):
            if getattr(a, name) != getattr(b, name):
                raise Different(f"{path}.{name}")
        if len(a.co_consts) != len(b.co_consts):
            raise Different(f"{path}.co_consts")
        for x, y in zip(a.co_consts, b.co_consts):
            if isinstance(x, types.CodeType):
                self.code(x, y, path + ".co_consts")
            elif x != y:
                raise Different(f"{path}.co_consts")

    def klass(self, a, b, path):
        for name in ("__name__", "__qualname__", "__module__"):
            if getattr(a, name) != getattr(b, name):
                raise Different(f"{path}.{name}")
        self.compare(a.__bases__, b.__bases__, path + ".__bases__")
        skip = ("__dict__", "__weakref__", "__firstlineno__", "__static_attributes__")
        names = {n for n in vars(a) if n not in skip}
        if names != {n for n in vars(b) if n not in skip}:
            raise Different(f"{path}: attributes")
        for name in sorted(names):
            x, y = vars(a)[name], vars(b)[name]
            if isinstance(x, (classmethod, staticmethod)):
                x, y = x.__func__, y.__func__
            if isinstance(x, property):
                x, y = (x.fget, x.fset), (y.fget, y.fset)
            if isinstance(x, types.MemberDescriptorType):
                continue
            self.compare(x, y, f"{path}.{name}")

    def array(self, a, b, path):
        import numpy as np

        if isinstance(a, np.ndarray):
            same = a.dtype == b.dtype and a.shape == b.shape
            if a.dtype == object:
                self.compare(a.tolist(), b.tolist(), path)
            else:
                same = same and a.tobytes() == b.tobytes()
        elif hasattr(a, "equals"):
            same = a.equals(b)
        else:
            same = bool(a == b) or repr(a) == repr(b)
        if not same:
            raise Different(f"{path}: {a!r} is not {b!r}")


def cell(c, empty):
    try:
        return c.cell_contents
    except ValueError:
        return empty


def names_used(code):
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from names_used(const)


def same(a, b):
    """Raises `Different` unless the two are the same."""
    Comparison().compare(a, b)
