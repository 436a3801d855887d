# What the program may do with what a test gave it. It writes both ends of the conversation as it likes, so
# each request is looked at as if it came from an adversary: it is about an object that was lent, which is the
# test's own or a harmless one; and what it changes is an instance of the test's own classes.
import types

HIDDEN = ("_", "gi_", "cr_", "ag_", "f_", "tb_", "co_")
# Modules whose instances may be lent. None of these opens files, runs text, or hands out either.
HARMLESS = LIBRARIES | {
    "tests", "builtins", "random", "unittest.mock", "array", "enum", "_random", "_operator", "_functools",
    "_collections", "_collections_abc", "_contextvars",
}
INSIDES = (
    types.ModuleType, types.CodeType, types.FrameType, types.TracebackType, types.CellType, types.MappingProxyType,
    types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType, types.MethodWrapperType,
)
STREAMS = ("StringIO", "BytesIO")
VALUES = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range,
    collections.deque, collections.OrderedDict, collections.Counter, collections.defaultdict)
# Requests that take two objects, of which either may be the one that was lent.
EITHER = frozenset(BINARY + ORDERS + ("eq", "ne"))
SERVED = EITHER | frozenset(
    "call get set setitem delitem next iter isinstance issubclass bare hash truth len str repr contains getitem int float round reversed"
    " index complex abs neg pos invert enter exit".split()
)


def lendable(value):
    """Whether the program may have this, by reference."""
    kind = type(value)
    if isinstance(value, type):
        return value.__module__ == "tests" or issubclass(value, BaseException)
    if isinstance(value, INSIDES):
        return False
    if kind is types.FunctionType:
        return value.__globals__.get("__name__") == "tests"
    if kind in (types.MethodType, types.BuiltinMethodType):
        owner = value.__self__
        return not value.__name__.startswith("_") and (type(owner) in VALUES or lendable(owner))
    if kind in (types.MethodDescriptorType, types.ClassMethodDescriptorType):
        return not value.__name__.startswith("_")
    if kind.__module__ == "_io":
        return kind.__name__ in STREAMS
    return kind.__module__ in HARMLESS or kind is types.SimpleNamespace


class Judge(Wire):
    strict = True
    naming = False

    def lend(self, value):
        if not lendable(value):
            raise TypeError("the program may not have %r" % value)
        return super().lend(value)

    def program(self, name):
        """(True, what the program calls so), or (False,)."""
        self.naming = True
        try:
            answer = self.ask("global", name)
        finally:
            self.naming = False
        return answer if type(answer) is tuple and len(answer) == 2 and answer[0] is True else (False,)

    def known_module(self, name, place):
        """A library of this interpreter only where a test asked for one: elsewhere the program's."""
        return super().known_module(name, place) if self.naming else self.remote(place)

    def answer(self, message):
        naming, self.naming = self.naming, False
        try:
            super().answer(message)
        finally:
            self.naming = naming

    def admit(self, what, forms):
        lent = [isinstance(form, list) and form[:1] == ["y"] for form in forms]
        if what not in SERVED or not (any(lent[:2]) if what in EITHER else lent[:1] == [True]):
            raise TypeError("not to be had")

    def serve(self, what, args, keys):
        if what in ("get", "set") and (type(args[1]) is not str or args[1].startswith(HIDDEN)):
            raise AttributeError("%s is not to be had" % (args[1],))
        if what == "set":
            kind = type(args[0])
            if isinstance(args[0], type) or kind.__module__ != "tests" and kind is not types.SimpleNamespace:
                raise TypeError("only the test's own objects are to be changed")
        return super().serve(what, args, keys)
