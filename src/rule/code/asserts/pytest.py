# What tests for pytest use of it. Tests are prepared and run here, so this stands for pytest where it is installed, too.
import types

PYTEST = frozenset("raises approx mark param fail main".split())
# Of a test class: what is run before its tests, and what is not run here.
BEFORE, AROUND = "setup_method", frozenset("setup_class teardown_class teardown_method setup teardown".split())


class Raises:
    def __init__(self, kinds, match=None):
        self.kinds, self.match = kinds, match

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            raise AssertionError("nothing was raised")
        if not isinstance(error, self.kinds):
            return False
        assert self.match is None or re.search(self.match, str(error)), "%s does not match %r" % (error, self.match)
        self.type, self.value = kind, error
        return True


def raises(kinds, *call, match=None, **keys):
    if not call:
        return Raises(kinds, match)
    with Raises(kinds) as raised:
        call[0](*call[1:], **keys)
    return raised


class Approx:
    def __init__(self, expected, rel=None, abs=None, nan_ok=False):
        self.expected, self.nan_ok = expected, nan_ok
        # A tolerance that is named alone is the only one.
        self.rel = (0.0 if abs is not None else 1e-6) if rel is None else rel
        self.abs = 1e-12 if abs is None else abs

    def __eq__(self, actual):
        return self.near(actual, self.expected)

    def near(self, actual, expected):
        if type(expected) in (list, tuple):
            return type(actual) is type(expected) and len(actual) == len(expected) and all(map(self.near, actual, expected))
        if type(expected) is dict:
            return type(actual) is dict and actual.keys() == expected.keys() and all(
                self.near(actual[key], expected[key]) for key in expected)
        numbers = (int, float, complex, fractions.Fraction, decimal.Decimal)
        if type(actual) not in numbers or type(expected) not in numbers:
            return actual == expected
        if actual == expected:
            return True
        if actual != actual or expected != expected:
            return self.nan_ok and actual != actual and expected != expected
        most = max(self.rel * abs(expected), self.abs)
        return abs(expected) != float("inf") and abs(actual - expected) <= most

    def __repr__(self):
        return "approx(%r)" % (self.expected,)


class Param:
    def __init__(self, *values, id=None):
        self.values = values


def parametrize(names, rows, ids=None):
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)

    def decorate(test):
        def run(*args, **keys):
            for row in rows:
                row = row.values if isinstance(row, Param) else (row,) if len(names) == 1 else row
                test(*args, **keys, **dict(zip(names, row)))

        return run

    return decorate


def fail(reason="", pytrace=True):
    raise AssertionError(reason)


def stand_in_for_pytest():
    pytest = types.ModuleType("pytest")
    pytest.raises, pytest.approx, pytest.param, pytest.fail = raises, Approx, Param, fail
    pytest.mark = types.SimpleNamespace(parametrize=parametrize)
    pytest.main = lambda *args: 0
    sys.modules["pytest"] = pytest


def of_pytest(node):
    """`pytest.x.y` as ["x", "y"]; empty for anything else."""
    path = []
    while isinstance(node, ast.Attribute):
        path.insert(0, node.attr)
        node = node.value
    return path if isinstance(node, ast.Name) and node.id == "pytest" else []


def asks_for(test):
    """Arguments of a test function that no `parametrize` gives: fixtures."""
    given = set()
    for call in test.decorator_list:
        if isinstance(call, ast.Call) and of_pytest(call.func) == ["mark", "parametrize"] and call.args:
            names = call.args[0]
            listed = names.elts if isinstance(names, (ast.List, ast.Tuple)) else [names]
            for name in listed:
                given |= {part.strip() for part in str(getattr(name, "value", "")).split(",")}
    return [arg.arg for arg in test.args.args + test.args.kwonlyargs if arg.arg not in given]


def tests_of(body):
    return [node for node in body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test")]


def discovered(tree, read):
    """The calls that pytest would make of a test's functions and classes, and why it cannot be done here, if so."""
    calls = []
    for test in tests_of(tree.body):
        if test.name in read:
            continue
        if isinstance(test, ast.AsyncFunctionDef) or asks_for(test):
            return calls, "%s is a coroutine, or asks for fixtures" % test.name
        calls.append(test.name + "()")
    for group in tree.body:
        if not isinstance(group, ast.ClassDef) or group.name in read or not tests_of(group.body):
            continue
        own = {node.name: node for node in group.body if isinstance(node, ast.FunctionDef)}
        if group.bases or AROUND & own.keys() or BEFORE in own and len(own[BEFORE].args.args) != 1:
            return calls, "class %s has a base, or more around its tests than %s(self)" % (group.name, BEFORE)
        for test in tests_of(group.body):
            if isinstance(test, ast.AsyncFunctionDef) or asks_for(test) != ["self"]:
                return calls, "%s.%s is a coroutine, or asks for fixtures" % (group.name, test.name)
            before = "_group.%s()\n" % BEFORE if BEFORE in own else ""
            calls.append("_group = %s()\n%s_group.%s()" % (group.name, before, test.name))
    for node in ast.walk(tree):
        path = of_pytest(node)
        named = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) and node.module == "pytest" else []
        unknown = [name for name in path[:1] + named if name not in PYTEST]
        if unknown or path[:1] == ["mark"] and len(path) > 1 and path[1] != "parametrize":
            return calls, "pytest's %s is not run here" % ".".join(unknown or path)
    return calls, None
