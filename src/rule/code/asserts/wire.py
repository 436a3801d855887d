# Both ends of the pipe between the judge, which runs the tests, and the agent, which holds the
# program. Plain values are copied: what arrives is of the exact built-in type, whatever it was.
# Everything else is lent: the other end gets a `Remote` that asks for each use.
import builtins, collections, datetime, decimal, fractions, importlib, json, operator, os, re, sys

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
    "bisect cmath collections collections.abc datetime decimal fractions functools heapq itertools math numbers operator"
    " re statistics string".split()
)
# These reach by name into whatever they are called with.
REACHING = frozenset("attrgetter methodcaller".split())
NOTHING = object()
# Numpy's names of types whose content is bytes, and nothing that points elsewhere.
ARRAY = re.compile(r"[<>|=]?[?biufcUSmM]\d*(\[\d*\w+\])?", re.ASCII)


class Gone(BaseException):
    """The other end ended, or does not keep to the protocol."""


def standard(module, name):
    """A function or class of the library by name, if it is one that may be named."""
    if module == "builtins":
        found = getattr(builtins, name, None)
        known = name in FUNCTIONS or isinstance(found, type) and issubclass(found, BaseException)
    else:
        known = module in LIBRARIES and not name.startswith("_") and name not in REACHING
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
        if kind.__module__ == "numpy" and ARRAY.fullmatch(getattr(getattr(value, "dtype", None), "str", "")):
            if kind.__name__ == "ndarray":
                return ["A", value.dtype.str, list(value.shape), value.tobytes().hex()]
            if value.ndim == 0:
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
            return self.known_module(*rest)
        if tag == "y":
            return self.lent[within(rest[0], self.lent)]
        if tag == "A":
            if not ARRAY.fullmatch(rest[0]):
                raise Gone("not an array")
            numpy = importlib.import_module("numpy")
            return numpy.frombuffer(bytes.fromhex(rest[2]), dtype=rest[0]).reshape(rest[1]).copy()
        if tag == "x":
            if ("x", rest[0]) not in self.far:
                base = self.decode(rest[2])
                if not (isinstance(base, type) and issubclass(base, BaseException)):
                    raise Gone("not an exception")
                self.far["x", rest[0]] = type(str(rest[1]), (base,), {"__module__": "solution"})
            return self.far["x", rest[0]]
        if tag == "h":
            return self.remote(rest[0])
        raise Gone("not a value: %r" % tag)

    def known_module(self, name, place):
        return importlib.import_module(name) if name in LIBRARIES else self.remote(place)

    def remote(self, place):
        if type(place) is not int:
            raise Gone("not a place")
        if place not in self.far:
            found = object.__new__(Remote)
            object.__setattr__(found, "_gristmill_wire", self)
            object.__setattr__(found, "_gristmill_place", place)
            object.__setattr__(found, "_gristmill_shown", False)
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
        keys = keys or {}
        question = ["?", what, [self.encode(arg) for arg in args], [[k, self.encode(v)] for k, v in keys.items()]]
        try:
            self.send(question)
            while True:
                message = self.receive()
                if message[0] == "?":
                    self.answer(message)
                    continue
                if message[0] == "!":
                    fault = self.fault(what, self.decode(message[1]), message[2], message[3])
                    break
                for place, form in message[2]:
                    restore(keys[place] if type(place) is str else args[within(place, args)], self.decode(form))
                if isinstance(message[1], list) and message[1][:1] == ["a"]:
                    return args[within(message[1][1], args)]
                return self.decode(message[1])
        except Gone:
            self.gone = True
            raise
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError, MemoryError,
                ImportError) as error:
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
            self.admit(message[1], message[2])
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

    def admit(self, what, forms):
        """Raises if this is not to be served, whatever the arguments turn out to be."""

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


def within(place, items):
    """`place`, if it is one of `items`' own."""
    if type(place) is not int or not 0 <= place < len(items):
        raise Gone("no such place")
    return place


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
