# What stands for a thing of the other end, and what its operators mean.
#
# In the judge (`strict`) an operator decides by values that are compared here. The program's own operators
# run only between its own objects, or where they give an object again: what saw a value of the test is not
# believed to be one.


def own(remote):
    return object.__getattribute__(remote, "_gristmill_wire")


def shown(remote):
    """Whether it came out of an operator whose other side was a value of the test."""
    return own(remote).strict and object.__getattribute__(remote, "_gristmill_shown")


def content(remote):
    """(True, value) where the lent object is of a built-in kind: compared here, as a value. Numbers and texts are
    copied when they are answered, so only containers are lent: whatever else claims a content has none."""
    if not shown(remote):
        found = own(remote).ask("bare", remote)
        if type(found) is tuple and len(found) == 2 and type(found[1]) in CONTAINERS:
            return found
    return (False,)


CONTAINERS = (tuple, list, set, frozenset, dict)


class Remote:
    """A thing of the other end."""

    __slots__ = ("_gristmill_wire", "_gristmill_place", "_gristmill_shown")

    def __call__(self, *args, **keys):
        wire = own(self)
        return wire.ask("call", self, *args, keys=keys)

    def __getattr__(self, name):
        # Numpy reads memory where these say.
        if name.startswith("__array"):
            raise AttributeError(name)
        return own(self).ask("get", self, name)

    def __setattr__(self, name, value):
        own(self).ask("set", self, name, value)

    def __eq__(self, other):
        return compare("eq", self, other, False)

    def __ne__(self, other):
        return compare("ne", self, other, True)

    def __hash__(self):
        return own(self).ask("hash", self)

    def __bool__(self):
        return bool(own(self).ask("truth", unshown(self)))

    def __len__(self):
        return OPERATIONS["index"](own(self).ask("len", unshown(self)))

    def __str__(self):
        return str(own(self).ask("str", self))

    def __repr__(self):
        return str(own(self).ask("repr", self))

    def __iter__(self):
        if self is (found := own(self).ask("iter", self)):
            return self
        return iter(found)

    def __next__(self):
        return own(self).ask("next", self)

    def __contains__(self, item):
        wire = own(self)
        return any(one is item or one == item for one in self) if wire.strict else bool(wire.ask("contains", self, item))

    def __instancecheck__(self, item):
        return type(item) is Remote and bool(own(self).ask("isinstance", item, self))

    def __subclasscheck__(self, item):
        return type(item) is Remote and bool(own(self).ask("issubclass", item, self))

    def __format__(self, spec):
        return format(str(self), spec)

    def __await__(self):
        return own(self).ask("await", self)
        yield


def unshown(remote):
    """An object that an operator gave for a value of the test would be empty, or false, because it is right."""
    if shown(remote):
        raise TypeError("what the program made of a value of the test is neither true nor empty")
    return remote


def compare(name, left, right, otherwise):
    """With a plain value the content decides, here: an object that says it equals everything does not.
    Without content there is nothing to compare; `otherwise` None is an error then."""
    wire = own(left)
    if type(right) is Remote or not wire.strict:
        return bool(wire.ask(name, left, right))
    found = content(left)
    if len(found) == 2:
        return OPERATIONS[name](found[1], right)
    if otherwise is None:
        raise TypeError("an object of the program is not ordered against a plain value")
    return otherwise


def arithmetic(name, left, right):
    """Among the program's objects; with a plain value only where an object comes out."""
    far = left if type(left) is Remote else right
    wire = own(far)
    if not wire.strict:
        return wire.ask(name, left, right)
    if type(left) is Remote and type(right) is Remote:
        return mark(wire.ask(name, left, right), shown(left) or shown(right))
    found = content(far)
    if len(found) == 2:
        return OPERATIONS[name](*((found[1], right) if far is left else (left, found[1])))
    return mark(wire.ask(name, left, right), True)


def mark(result, is_shown):
    """Keeps in mind that the program has seen a value of the test; a plain value is then no result."""
    if not is_shown:
        return result
    if type(result) is not Remote:
        raise TypeError("an operator between the program's object and a plain value gives no plain value")
    object.__setattr__(result, "_gristmill_shown", True)
    return result


def single(name, value):
    wire = own(value)
    if not wire.strict:
        return wire.ask(name, value)
    found = content(value)
    if len(found) == 2:
        return OPERATIONS[name](found[1])
    result = wire.ask(name, value) if name in ("neg", "pos", "invert") else None
    if type(result) is Remote:
        return mark(result, shown(value))
    raise TypeError("an object of the program is not a number")


def finish(awaitable):
    """What a coroutine comes to."""
    asyncio = importlib.import_module("asyncio")

    async def wait():
        return await awaitable

    return asyncio.run(wait())


# Bound once: what the names stand for is not looked up again.
OPERATIONS = {
    "hash": hash, "truth": operator.truth, "len": len, "str": str, "repr": repr, "contains": operator.contains,
    "getitem": operator.getitem, "setitem": operator.setitem, "delitem": operator.delitem,
    "int": int, "float": float, "round": round, "reversed": reversed, "index": operator.index, "complex": complex,
    "abs": abs, "neg": operator.neg, "pos": operator.pos, "invert": operator.invert,
    "eq": operator.eq, "ne": operator.ne, "type": type, "await": finish,
    "enter": lambda a: type(a).__enter__(a),
    "exit": lambda a, raised: type(a).__exit__(a, RuntimeError if raised else None, None, None),
}
ORDERS = ("lt", "le", "gt", "ge")
BINARY = tuple("add sub mul truediv floordiv mod pow matmul lshift rshift xor and_ or_".split())


def operators():
    for name in ORDERS:
        OPERATIONS[name] = getattr(operator, name)
        setattr(Remote, "__%s__" % name, lambda a, b, name=name: compare(name, a, b, None))
    for name in BINARY:
        OPERATIONS[name] = getattr(operator, name)
        setattr(Remote, "__%s__" % name.strip("_"), lambda a, b, name=name: arithmetic(name, a, b))
        setattr(Remote, "__r%s__" % name.strip("_"), lambda a, b, name=name: arithmetic(name, b, a))
    for name in ("abs", "neg", "pos", "invert", "int", "float", "index", "complex"):
        setattr(Remote, "__%s__" % name, lambda a, name=name: single(name, a))
    Remote.__round__ = lambda a, *digits: round(single("float", a), *digits)
    for name in ("getitem", "setitem", "delitem"):
        setattr(Remote, "__%s__" % name, lambda a, *rest, name=name: own(a).ask(name, a, *rest))
    Remote.__reversed__ = lambda a: own(a).ask("reversed", a)
    Remote.__enter__ = lambda a: own(a).ask("enter", a)
    Remote.__exit__ = lambda a, kind, *_: own(a).ask("exit", a, kind is not None)


operators()
