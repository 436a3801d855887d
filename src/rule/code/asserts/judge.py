# Runs the tests in an interpreter that the program never enters, and reports each on standard error,
# a line of JSON each. What the tests do not define they get from the program, through the wire.
import ast, importlib.util

# What would let the program's text run here.
EVALUATES = frozenset("eval exec pickle marshal".split())
# What tests are written with. Of such names it is the program's only where there is no other.
HELPERS = frozenset("abs all any bool dict enumerate float frozenset int isinstance len list print range repr round set"
    " sorted str tuple type zip AssertionError Exception TypeError ValueError".split())
# What a test is given beside the program's names.
OWN = frozenset(("__kind__", "__program__"))


def free_names(tree):
    """Names that a test reads and nothing in it makes."""
    read, made = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, ast.alias):
            made.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            made.add(node.name)
    return sorted(read - made)


def known(name):
    """Whether it is the language's own."""
    return hasattr(builtins, name) or name in sys.stdlib_module_names


def asked(names):
    """Those that are the program's to define. The language's own functions and libraries are not, unless a test has
    no other name: then that is what it is about (`assert sum(2, 3) == 6`)."""
    names = set(names)
    program = {name for name in names - OWN if not known(name)}
    if program or "__program__" in names:
        return program
    return names - HELPERS - OWN or (names - OWN if len(names - OWN) == 1 else set())


class Rewrite(ast.NodeTransformer):
    """`type(x)` asks what x is there; `from solution import f` is what a free name means already."""

    def visit_Call(self, node):
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "type" and len(node.args) == 1 and not node.keywords:
            node.func.id = "__kind__"
        return node

    def visit_ImportFrom(self, node):
        if node.module != "solution" or any(alias.name == "*" for alias in node.names):
            return node
        renamed = [ast.Assign([ast.Name(alias.asname, ast.Store())], ast.Name(alias.name, ast.Load()))
            for alias in node.names if alias.asname not in (None, alias.name)]
        return [ast.fix_missing_locations(ast.copy_location(each, node)) for each in renamed or [ast.Pass()]]


def prepared(text):
    """A test as it is run, the names it asks for, and the top modules it imports that are not here."""
    tree = Rewrite().visit(ast.parse(text))
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    calls, refused = discovered(tree, read)
    tree.body += ast.parse("\n".join(calls)).body
    names = free_names(tree)
    imported = {name.split(".")[0] for node in ast.walk(tree) for name in (
        [alias.name for alias in node.names] if isinstance(node, ast.Import)
        else [node.module or ""] if isinstance(node, ast.ImportFrom) else [])}
    absent = sorted(name for name in imported - {"", "pytest"} if importlib.util.find_spec(name) is None)
    refused = refused or unsupported(tree, names, imported)
    return compile(tree, "test", "exec"), names, absent, refused


def unsupported(tree, names, imported):
    """Why a test cannot be run apart from the program, if it cannot: told from the test alone."""
    program = {name for name in names if not known(name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id in program:
                    return "class %s derives from the program's %s" % (node.name, base.id)
    evaluates = EVALUATES & (set(names if program else ()) | imported)
    if evaluates:
        return "%s would run the program's text here" % sorted(evaluates)[0]
    if not asked(names) and "__program__" not in names:
        return "it does not say what of the program it asks for"
    return None


def kind(value):
    return own(value).ask("type", value) if type(value) is Remote else type(value)


def is_instance(value, kinds):
    if type(value) is not Remote or not isinstance(kinds, (type, tuple)):
        return isinstance(value, kinds)
    if type(kinds) is tuple:
        return any(is_instance(value, each) for each in kinds)
    # Of a class that the program cannot name it has no instance.
    return named(kinds) is not None and bool(own(value).ask("isinstance", value, kinds))


def scope(wire, names):
    """What the free names stand for."""
    program = asked(names)
    found = {"__name__": "tests", "isinstance": is_instance, "__kind__": kind, "__program__": wire.program}
    for name in names:
        if name in program:
            answer = wire.program(name)
            if answer[0]:
                found[name] = answer[1]
                continue
            if name in EVALUATES:
                found[name] = None
        if name in sys.stdlib_module_names and not hasattr(builtins, name):
            try:
                found[name] = importlib.import_module(name)
            except ImportError:
                pass
    return found


def run_coroutines_of_the_program():
    asyncio = importlib.import_module("asyncio")
    run = asyncio.run

    def run_any(main, **keys):
        async def wait():
            return await main

        return run(wait() if type(main) is Remote else main, **keys)

    asyncio.run = run_any


def main():
    report = os.dup(2)
    wire = Judge(os.fdopen(os.dup(0), "rb"), os.dup(1))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)

    def tell(**line):
        os.write(report, json.dumps(line).encode() + b"\n")

    with open("/box/tests.json", encoding="utf-8") as file:
        tests = json.load(file)
    tell(ready=True)
    ready = []
    for index, text in enumerate(tests):
        try:
            code, names, absent, refused = prepared(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            tell(test=index, fault="%s: %s" % (type(error).__name__, error))
            return
        if refused:
            tell(test=index, unsupported=refused)
            return
        ready.append((code, names, absent))
    if any("pytest" in text for text in tests):
        stand_in_for_pytest()
    if any("asyncio" in text for text in tests):
        run_coroutines_of_the_program()
    for index, (code, names, absent) in enumerate(ready):
        try:
            exec(code, scope(wire, names))
        except ImportError as error:
            # Only a test that imports what is not here is at fault: nothing that the program did.
            if absent and not hasattr(error, "_gristmill_far"):
                tell(test=index, fault="%s: %s" % (type(error).__name__, error))
                return
            failure = error
        except BaseException as error:
            failure = error
        else:
            failure = None
        if failure is None and not wire.gone:
            tell(test=index, passed=True)
            continue
        error = ("%s: %s" % (type(failure).__name__, failure))[:500]
        tell(test=index, passed=False, error=error, gone=wire.gone)
        if wire.gone:
            return


main()
