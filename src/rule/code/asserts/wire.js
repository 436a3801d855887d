// Both ends of the pipe between the judge, which runs the tests, and the agent, which holds the
// program. Plain values are copied; everything else is lent, and the other end asks for each use.
const fs = require("fs"), vm = require("vm");
const MOST_BYTES = 64 << 20;

class Gone extends Error {}

class Wire {
  constructor(input, output) {
    Object.assign(this, { input, output, lent: [], places: new Map(), far: new Map(), own: new WeakMap(), rest: [], gone: false });
  }

  encode(value, depth = 0) {
    if (depth > 500) throw new RangeError("a value is nested too deeply");
    const inner = (item) => this.encode(item, depth + 1);
    if (value === null || typeof value === "boolean" || typeof value === "string") return value;
    if (typeof value === "number") {
      return Number.isFinite(value) && !Object.is(value, -0) ? value : ["n", Object.is(value, -0) ? "-0" : String(value)];
    }
    if (value === undefined) return ["u"];
    if (typeof value === "bigint") return ["i", value.toString(16)];
    if (this.own.has(value)) return ["y", this.own.get(value)];
    if (typeof value === "object") {
      const kind = Object.prototype.toString.call(value), form = Object.getPrototypeOf(value);
      const plain = form === null || Object.prototype.hasOwnProperty.call(form, "constructor") && Object.getPrototypeOf(form) === null;
      if (Array.isArray(value)) return ["l", Array.from(value, inner)];
      if (plain && kind === "[object Object]" && !Object.keys(value).some((key) => typeof value[key] === "function")) {
        return ["o", Object.keys(value).map((key) => [key, inner(value[key])])];
      }
      const base = form.constructor === value.constructor && form.constructor && form.constructor.name;
      if (kind === "[object Map]" && base === "Map") return ["M", Array.from(value, ([k, v]) => [inner(k), inner(v)])];
      if (kind === "[object Set]" && base === "Set") return ["s", Array.from(value, inner)];
      if (kind === "[object Date]" && base === "Date") return ["d", Number(value)];
      if (kind === "[object RegExp]") return ["r", value.source, value.flags];
      if (kind === "[object Error]") return ["e", String(value.name), String(value.message)];
    }
    return ["h", this.lend(value), typeof value === "function"];
  }

  lend(value) {
    if (!this.places.has(value)) {
      this.places.set(value, this.lent.length);
      this.lent.push(value);
    }
    return this.places.get(value);
  }

  decode(form) {
    if (!Array.isArray(form)) return form;
    const [tag, a, b] = form, inner = (item) => this.decode(item);
    switch (tag) {
      case "n": return Number(a);
      case "u": return undefined;
      case "i": return a.startsWith("-") ? -BigInt("0x" + a.slice(1)) : BigInt("0x" + a);
      case "l": return a.map(inner);
      case "o": {
        const made = {};
        for (const [key, item] of a) Object.defineProperty(made, key, { value: inner(item), writable: true, enumerable: true, configurable: true });
        return made;
      }
      case "M": return new Map(a.map(([k, v]) => [inner(k), inner(v)]));
      case "s": return new Set(a.map(inner));
      case "d": return new Date(a);
      case "r": return new RegExp(a, b);
      case "e": return fault(a, b);
      case "y": return this.lent[within(a, this.lent)];
      case "h": return this.remote(a, b);
      default: throw new Gone("not a value");
    }
  }

  // A thing of the other end. It is turned into a plain value by the other end's own conversions, so
  // it never is strictly equal to one.
  remote(place, callable) {
    if (!Number.isInteger(place)) throw new Gone("not a place");
    if (!this.far.has(place)) {
      const wire = this, key = (name) => (typeof name === "symbol" ? "@@" + String(name.description).replace("Symbol.", "") : name);
      // What it is as a number or a text is asked once: it cannot be less and then more.
      const known = new Map();
      const primitive = (hint) => {
        if (!known.has(hint)) known.set(hint, wire.ask("primitive", made, hint));
        return known.get(hint);
      };
      const made = new Proxy(callable ? function () {} : {}, {
        get: (_, name) => {
          if (callable && ["apply", "call", "bind"].includes(name)) return Function.prototype[name];
          return wire.strict && name === Symbol.toPrimitive ? primitive : wire.ask("get", made, key(name));
        },
        set: (_, name, value) => (wire.ask("set", made, key(name), value), true),
        has: (_, name) => Boolean(wire.ask("has", made, key(name))),
        apply: (_, self, args) => wire.ask("call", made, self, args),
        construct: (_, args) => wire.ask("new", made, args),
        getPrototypeOf: () => null,
        ownKeys: (target) => Reflect.ownKeys(target),
      });
      this.far.set(place, made);
      this.own.set(made, place);
    }
    return this.far.get(place);
  }

  send(message) {
    let bytes = Buffer.from(JSON.stringify(message) + "\n");
    try {
      while (bytes.length) bytes = bytes.subarray(fs.writeSync(this.output, bytes));
    } catch (error) {
      this.gone = true;
      throw new Gone(String(error));
    }
  }

  receive() {
    let size = 0;
    for (;;) {
      const piece = this.rest.length ? this.rest.pop() : this.read();
      const end = piece.indexOf(10);
      size += piece.length;
      if (end >= 0) {
        const line = Buffer.concat([...(this.line || []), piece.subarray(0, end)]);
        this.line = [];
        if (end + 1 < piece.length) this.rest.push(piece.subarray(end + 1));
        return JSON.parse(line.toString());
      }
      if (!piece.length || size > MOST_BYTES) {
        this.gone = true;
        throw new Gone(piece.length ? "a value is too large" : "the program ended");
      }
      (this.line ||= []).push(piece);
    }
  }

  read() {
    const piece = Buffer.alloc(1 << 16);
    for (;;) {
      try {
        return piece.subarray(0, fs.readSync(this.input, piece));
      } catch (error) {
        if (error.code === "EOF") return piece.subarray(0, 0);
        if (error.code !== "EAGAIN") throw error;
      }
    }
  }

  ask(what, ...args) {
    const forms = args.map((arg) => this.encode(arg)), list = what === "call" ? 2 : what === "new" ? 1 : -1;
    // One of the arguments of a call, which are all that may be changed or handed back.
    const argument = ([at, place]) => {
      if (list < 0 || at !== list) throw new Gone("no such argument");
      return args[list][within(place, args[list])];
    };
    let raised;
    try {
      this.send(["?", what, forms]);
      for (;;) {
        const message = this.receive();
        if (message[0] === "?") this.answer(message);
        else if (message[0] === "=") {
          for (const [at, form] of message[2]) restore(argument(at), this.decode(form));
          const same = message[1];
          return Array.isArray(same) && same[0] === "a" ? argument(same[1]) : this.decode(same);
        } else {
          raised = this.decode(message[1]);
          break;
        }
      }
    } catch (error) {
      this.gone = true;
      throw error instanceof Gone ? error : new Gone("not an answer: " + error);
    }
    throw raised;
  }

  answer([, what, forms]) {
    let reply;
    try {
      this.admit(what, forms);
      const args = forms.map((form) => this.decode(form)), list = what === "call" ? 2 : 1;
      const given = what === "call" || what === "new" ? args[list] : [];
      const changing = (value) => value && typeof value === "object" && !this.own.has(value);
      const before = given.map((value) => changing(value) && JSON.stringify(this.encode(value)));
      const result = this.serve(what, args);
      const same = given.findIndex((value, at) => before[at] && value === result);
      const writes = [];
      given.forEach((value, at) => {
        const now = before[at] && this.encode(value);
        if (before[at] && JSON.stringify(now) !== before[at]) writes.push([[list, at], now]);
      });
      reply = ["=", same < 0 ? this.encode(result) : ["a", [list, same]], writes];
    } catch (error) {
      if (error instanceof Gone) throw error;
      const shown = error instanceof Object && "message" in error ? ["e", String(error.name), String(error.message)] : this.encode(error);
      reply = ["!", shown];
    }
    this.send(reply);
  }

  // Throws if this is not to be served, whatever the arguments turn out to be.
  admit() {}

  serve(what, args) {
    switch (what) {
      case "call": return Reflect.apply(args[0], args[1], args[2]);
      case "new": return Reflect.construct(args[0], args[1]);
      case "get": return args[0][symbol(args[1])];
      case "set": return void (args[0][symbol(args[1])] = args[2]);
      case "has": return symbol(args[1]) in args[0];
      case "primitive": return primitive(args[0], args[1]);
      default: throw new Gone("not a request");
    }
  }
}

// `place`, if it is one of the items' own.
function within(place, items) {
  if (!Array.isArray(items) || !Number.isInteger(place) || place < 0 || place >= items.length) throw new Gone("no such place");
  return place;
}

function symbol(name) {
  const found = typeof name === "string" && name.startsWith("@@") ? Symbol[name.slice(2)] : name;
  return typeof found === "symbol" ? found : name;
}

// As the language turns an object into a number or a text.
function primitive(value, hint) {
  if (value[Symbol.toPrimitive] != null) return value[Symbol.toPrimitive](hint);
  for (const name of hint === "string" ? ["toString", "valueOf"] : ["valueOf", "toString"]) {
    const found = typeof value[name] === "function" ? value[name]() : value;
    if (found === null || typeof found !== "object" && typeof found !== "function") return found;
  }
  throw new TypeError("an object that is no value");
}

const FAULTS = new Map(Object.entries({ TypeError, RangeError, SyntaxError, ReferenceError, EvalError, URIError }));

function fault(name, message) {
  const made = new (FAULTS.get(name) || Error)(message);
  if (made.name !== name) Object.defineProperty(made, "name", { value: name, configurable: true });
  return made;
}

// Gives a value that was changed there its new content here, in place.
function restore(mine, now) {
  if (Array.isArray(mine) && Array.isArray(now)) {
    if (mine.length === now.length) {
      now.forEach((item, at) => (Array.isArray(item) && Array.isArray(mine[at]) ? restore(mine[at], item) : (mine[at] = item)));
    } else mine.splice(0, mine.length, ...now);
  } else if (mine instanceof Map || mine instanceof Set) {
    mine.clear();
    for (const item of now) mine instanceof Map ? mine.set(...item) : mine.add(item);
  } else if (Object.getPrototypeOf(mine) === Object.prototype && Object.getPrototypeOf(now) === Object.prototype) {
    for (const key of Object.keys(mine)) delete mine[key];
    for (const key of Object.keys(now)) Object.defineProperty(mine, key, Object.getOwnPropertyDescriptor(now, key));
  }
}
