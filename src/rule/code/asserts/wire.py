# Both ends of the pipe between the judge, which runs the tests, and the agent, which holds the
# program. Plain values are copied: what arrives is of the exact built-in type, whatever it was.
# Everything else is lent: the other end gets a `Remote` that asks for each use.
import builtins, collections, datetime, decimal, fractions, importlib, json, operator, os, sys

if hasattr(sys, "set_int_max_str_digits"):
    sys.set_int_max_str_digits(0)

MOST_BYTES = 64 << 20
# What a name may stand for on the other side: none of these runs text or reaches the system.
FUNCTIONS = frozenset(
    "abs all any ascii bin bool bytearray bytes chr complex dict divmod enumerate filter float frozenset hash hex int"
    " iter len list map max min next object oct ord pow range repr reversed round set slice sorted str sum tuple zip"
    .split()
)
LIBRARIES = frozenset(
    "bisect cmath collections datetime decimal fractions functools heapq itertools math operator re statistics string"
    .split()
)
NOTHING = object()


class Gone(BaseException):
    """The other end ended, or does not keep to the protocol."""


def standard(module, name):
    """A function or class of the library by name, if it is one that may be named."""
    if module == "builtins":
        found = getattr(builtins, name, None)
        known = name in FUNCTIONS or isinstance(found, type) and issubclass(found, BaseException)
    else:
        known = module in LIBRARIES and not name.startswith("_")
        found = getattr(importlib.import_module(module), name, None) if known else None
    if known and callable(found):
        return found
    raise Gone("no such function: %s.%s" % (module, name))


def named(value):
    """(module, name) of a function or class that `standard` finds."""
    module = getattr(value, "__module__", None) or "builtins"
    module = {"_collections": "collections", "_operator": "operator", "_functools": "functools", "_heapq": "heapq",
        "_bisect": "bisect", "_statistics": "statistics", "_decimal": "decimal", "_datetime": "datetime"}.get(module, module)
    name = getattr(value, "__qualname__", None)
    if isinstance(module, str) and isinstance(name, str) and "." not in name:
        try:
            if standard(module, name) is value:
                return [module, name]
        except Gone:
            pass
    return None


PLAIN = {list: "l", tuple: "t", set: "s", frozenset: "f"}
DATES = {
    datetime.date: lambda v: [v.year, v.month, v.day],
    datetime.time: lambda v: [v.hour, v.minute, v.second, v.microsecond],
    datetime.datetime: lambda v: [v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond],
    datetime.timedelta: lambda v: [v.days, v.seconds, v.microseconds],
}


def bare(value):
    """The content of an instance of a subclass of a built-in type, or NOTHING."""
    for kind, read in BARE.items():
        if isinstance(value, kind):
            return read(value)
    return NOTHING


# Each reads past what the subclass may have overridden.
BARE = {
    int: lambda v: int.__add__(v, 0),
    float: lambda v: float.__add__(v, 0.0),
    str: lambda v: str.__getitem__(v, slice(None)) + "",
    bytes: lambda v: bytes.__getitem__(v, slice(None)),
    tuple: lambda v: tuple(tuple.__iter__(v)),
    list: lambda v: list(list.__iter__(v)),
    set: lambda v: set(set.__iter__(v)),
    frozenset: lambda v: frozenset(frozenset.__iter__(v)),
    dict: lambda v: dict(dict.items(v)),
}


class Wire:
    strict = False

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.lent, self.places, self.far = [], {}, {}
        self.gone = False

    # Values.

    def encode(self, value):
        kind = type(value)
        if value is None or kind in (bool, str, float):
            return value
        if kind is int:
            return value if -(1 << 53) < value < 1 << 53 else ["i", "%x" % value]
        if kind in PLAIN:
            return [PLAIN[kind], [self.encode(item) for item in value]]
        if kind is dict:
            return ["d", "", [[self.encode(k), self.encode(v)] for k, v in value.items()]]
        if kind in (collections.OrderedDict, collections.Counter, collections.defaultdict):
            return ["d", kind.__name__, [[self.encode(k), self.encode(v)] for k, v in value.items()]]
        if kind is collections.deque:
            return ["q", [self.encode(item) for item in value], value.maxlen]
        if kind in (bytes, bytearray):
            return ["b" if kind is bytes else "B", value.hex()]
        if kind is complex:
            return ["c", value.real, value.imag]
        if kind is range:
            return ["r", self.encode(value.start), self.encode(value.stop), self.encode(value.step)]
        if kind is slice:
            return ["S", self.encode(value.start), self.encode(value.stop), self.encode(value.step)]
        if kind is fractions.Fraction:
            return ["F", self.encode(value.numerator), self.encode(value.denominator)]
        if kind is decimal.Decimal:
            return ["D", str(value)]
        if kind in DATES and getattr(value, "tzinfo", None) is None:
            return ["T", kind.__name__, DATES[kind](value)]
        if kind is Remote:
            return ["y", value._gristmill_place]
        if kind is type(sys):
            return self.module(value)
        if isinstance(value, tuple) and kind.__bases__ == (tuple,) and hasattr(kind, "_fields"):
            return ["n", kind.__name__, list(kind._fields), [self.encode(item) for item in tuple.__iter__(value)]]
        if isinstance(value, (int, float, str, bytes)):
            return self.encode(bare(value))
        if kind.__module__ == "numpy" and getattr(value, "ndim", None) == 0:
            return self.encode(value.item())
        name = named(value)
        if name:
            return ["N"] + name
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["x", self.lend(value), value.__name__, self.encode(value.__bases__[0])]
        return ["h", self.lend(value)]

    def module(self, value):
        return ["m", value.__name__, self.lend(value)]

    def lend(self, value):
        place = self.places.get(id(value))
        if place is None:
            place = self.places[id(value)] = len(self.lent)
            self.lent.append(value)
        return place

    def decode(self, form):
        if not isinstance(form, list):
            return form
        tag, *rest = form
        if tag == "i":
            return int(rest[0], 16)
        for kind, name in PLAIN.items():
            if tag == name:
                return kind(self.decode(item) for item in rest[0])
        if tag == "d":
            pairs = [(self.decode(k), self.decode(v)) for k, v in rest[1]]
            if rest[0] == "defaultdict":
                return collections.defaultdict(None, pairs)
            return {"Counter": lambda pairs: collections.Counter(dict(pairs)), "OrderedDict": collections.OrderedDict}.get(rest[0], dict)(pairs)
        if tag == "q":
            return collections.deque([self.decode(item) for item in rest[0]], rest[1])
        if tag in ("b", "B"):
            return (bytes if tag == "b" else bytearray).fromhex(rest[0])
        if tag == "c":
            return complex(rest[0], rest[1])
        if tag == "r":
            return range(*map(self.decode, rest))
        if tag == "S":
            return slice(*map(self.decode, rest))
        if tag == "F":
            return fractions.Fraction(self.decode(rest[0]), self.decode(rest[1]))
        if tag == "D":
            return decimal.Decimal(rest[0])
        if tag == "T":
            return {kind.__name__: kind for kind in DATES}[rest[0]](*rest[1])
        if tag == "n":
            return collections.namedtuple(rest[0], rest[1])(*map(self.decode, rest[2]))
        if tag == "N":
            return standard(*rest)
        if tag == "m":
            return importlib.import_module(rest[0]) if rest[0] in LIBRARIES else self.remote(rest[1])
        if tag == "y":
            return self.lent[rest[0]]
        if tag == "x":
            if ("x", rest[0]) not in self.far:
                self.far["x", rest[0]] = type(str(rest[1]), (self.decode(rest[2]),), {"__module__": "solution"})
            return self.far["x", rest[0]]
        if tag == "h":
            return self.remote(rest[0])
        raise Gone("not a value: %r" % tag)

    def remote(self, place):
        if type(place) is not int:
            raise Gone("not a place")
        if place not in self.far:
            found = object.__new__(Remote)
            object.__setattr__(found, "_gristmill_wire", self)
            object.__setattr__(found, "_gristmill_place", place)
            self.far[place] = found
        return self.far[place]

    # Messages.

    def send(self, message):
        line = json.dumps(message).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self.writer, line):]
        except OSError as error:
            self.gone = True
            raise Gone(str(error)) from None

    def receive(self):
        line = self.reader.readline(MOST_BYTES)
        if not line.endswith(b"\n"):
            self.gone = True
            raise Gone("the program ended" if len(line) < MOST_BYTES else "a value is too large")
        return json.loads(line)

    def ask(self, what, *args, keys=None):
        """Asks the other end, serving what it asks meanwhile."""
        try:
            self.send(["?", what, [self.encode(arg) for arg in args], [[k, self.encode(v)] for k, v in (keys or {}).items()]])
            while True:
                message = self.receive()
                if message[0] == "?":
                    self.answer(message)
                    continue
                if message[0] == "!":
                    fault = self.fault(what, self.decode(message[1]), message[2], message[3])
                    break
                for place, form in message[2]:
                    restore((keys or {})[place] if isinstance(place, str) else args[place], self.decode(form))
                if isinstance(message[1], list) and message[1][:1] == ["a"]:
                    return args[message[1][1]]
                return self.decode(message[1])
        except Gone:
            self.gone = True
            raise
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError, MemoryError) as error:
            self.gone = True
            raise Gone("not an answer: %s" % error) from None
        raise fault

    def fault(self, what, kind, args, text):
        """What was raised there, to be raised here; what steers this end's own loops is not let through."""
        if not (isinstance(kind, type) and issubclass(kind, Exception)) or \
                issubclass(kind, (StopIteration, StopAsyncIteration)) and what != "next":
            kind, args = RuntimeError, None
        try:
            fault = kind(*self.decode(args)) if args is not None else kind(text)
        except Exception:
            fault = RuntimeError(text)
        fault._gristmill_far = True
        return fault

    def answer(self, message):
        """Serves one request."""
        try:
            args = [self.decode(form) for form in message[2]]
            keys = {str(key): self.decode(form) for key, form in message[3]}
            changing = (list, dict, set, bytearray, collections.deque)
            before = [(place, value, json.dumps(self.encode(value))) for place, value in [*enumerate(args), *keys.items()]
                if type(value) in changing]
            result = self.serve(message[1], args, keys)
            same = next((place for place, value, _ in before if value is result and type(place) is int), None)
            form = self.encode(result) if same is None else ["a", same]
            after = ((place, self.encode(value), form) for place, value, form in before)
            reply = ["=", form, [[place, now] for place, now, was in after if json.dumps(now) != was]]
        except Gone:
            raise
        except BaseException as error:
            try:
                args = self.encode(tuple(error.args))
                json.dumps(args)
            except BaseException:
                args = None
            text = "%s: %s" % (type(error).__name__, error)
            reply = ["!", self.encode(type(error)), args, text[:1000]]
        self.send(reply)

    def serve(self, what, args, keys):
        if what == "call":
            return args[0](*args[1:], **keys)
        if what == "get":
            return getattr(args[0], args[1])
        if what == "set":
            return setattr(args[0], args[1], args[2])
        if what == "isinstance":
            return isinstance(args[0], args[1])
        if what == "issubclass":
            return issubclass(args[0], args[1])
        if what == "next":
            return next(args[0])
        if what == "iter":
            return iter(args[0])
        if what == "bare":
            found = bare(args[0])
            return (False,) if found is NOTHING else (True, found)
        return OPERATIONS[what](*args)


def restore(mine, now):
    """Gives a value that was changed there its new content here, in place."""
    if mine is now or type(mine) is not type(now):
        return
    if isinstance(mine, list):
        if len(mine) == len(now):
            for place, item in enumerate(now):
                if type(item) is list and type(mine[place]) is list:
                    restore(mine[place], item)
                else:
                    mine[place] = item
        else:
            mine[:] = now
    elif isinstance(mine, (dict, set)):
        mine.clear()
        mine.update(now)
    elif isinstance(mine, bytearray):
        mine[:] = now
    elif isinstance(mine, collections.deque):
        mine.clear()
        mine.extend(now)


def own(remote):
    return object.__getattribute__(remote, "_gristmill_wire")


def content(remote):
    """(True, value) where the lent object is of a built-in kind: compared here, as a value."""
    return own(remote).ask("bare", remote)


class Remote:
    """A thing of the other end."""

    __slots__ = ("_gristmill_wire", "_gristmill_place")

    def __call__(self, *args, **keys):
        wire = own(self)
        return wire.ask("call", self, *args, keys=keys)

    def __getattr__(self, name):
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
        return bool(own(self).ask("truth", self))

    def __len__(self):
        return operator.index(own(self).ask("len", self))

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


def compare(name, left, right, otherwise):
    """With a plain value the content decides, here: an object that says it equals everything does not.
    Without content there is nothing to compare; `otherwise` None is an error then."""
    wire = own(left)
    if type(right) is Remote or not wire.strict:
        return bool(wire.ask(name, left, right))
    found = content(left)
    if len(found) == 2:
        return getattr(operator, name)(found[1], right)
    if otherwise is None:
        raise TypeError("an object of the program is not ordered against a plain value")
    return otherwise


def arithmetic(name, left, right):
    """Among the program's objects; with a plain value only where an object comes out."""
    far = left if type(left) is Remote else right
    wire = own(far)
    if wire.strict and not (type(left) is Remote and type(right) is Remote):
        found = content(far)
        if len(found) == 2:
            return getattr(operator, name)(*((found[1], right) if far is left else (left, found[1])))
    result = wire.ask(name, left, right)
    if wire.strict and type(result) is not Remote and not (type(left) is Remote and type(right) is Remote):
        raise TypeError("an operator between the program's object and a plain value gives no plain value")
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
        return result
    raise TypeError("an object of the program is not a number")


OPERATIONS = {
    "hash": hash, "truth": operator.truth, "len": len, "str": str, "repr": repr, "contains": operator.contains,
    "getitem": operator.getitem, "setitem": operator.setitem, "delitem": operator.delitem,
    "int": int, "float": float, "round": round, "reversed": reversed, "index": operator.index, "complex": complex,
    "abs": abs, "neg": operator.neg, "pos": operator.pos, "invert": operator.invert,
    "eq": operator.eq, "ne": operator.ne,
}


def operators():
    for name in ("lt", "le", "gt", "ge"):
        OPERATIONS[name] = getattr(operator, name)
        setattr(Remote, "__%s__" % name, lambda a, b, name=name: compare(name, a, b, None))
    for name in "add sub mul truediv floordiv mod pow matmul lshift rshift xor and_ or_".split():
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
    OPERATIONS["enter"] = lambda a: type(a).__enter__(a)
    OPERATIONS["exit"] = lambda a, raised: type(a).__exit__(a, RuntimeError if raised else None, None, None)


operators()
