// What the program may do with what a test gave it. It writes both ends of the conversation as it likes, so
// each request is looked at as if it came from an adversary: it is about an object that was lent, and what
// was here before the tests is neither read nor changed, only called where that is harmless.
const assert = require("assert");
const HIDDEN = /^(__|constructor$|prototype$|caller$|callee$|arguments$)/;
const SERVED = new Set(["call", "new", "get", "set", "has", "primitive"]);

// Everything that was here before the tests.
function first() {
  const seen = new Set(), iterators = [[], "", new Map(), new Set()].map((value) => value[Symbol.iterator]());
  const open = [globalThis, assert, fs, vm, require, module, ...iterators, (function* () {})(), async () => {}, (async function* () {})()];
  while (open.length) {
    const value = open.pop();
    if (value === null || typeof value !== "object" && typeof value !== "function" || seen.has(value)) continue;
    seen.add(value);
    open.push(Object.getPrototypeOf(value));
    for (const key of Reflect.ownKeys(value)) {
      const { value: held, get, set } = Object.getOwnPropertyDescriptor(value, key) || {};
      open.push(held, get, set);
    }
  }
  return seen;
}

// Functions of the language that reach nothing but what they are called on.
function harmless() {
  const seen = new Set([Number, String, Boolean, BigInt, parseInt, parseFloat, isNaN, isFinite]);
  const generator = Object.getPrototypeOf(function* () {}).prototype, iterator = Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]()));
  for (const holder of [Math, Number, String, Object.prototype, Array.prototype, Map.prototype, Set.prototype, String.prototype,
    Number.prototype, Boolean.prototype, Date.prototype, RegExp.prototype, Error.prototype, generator, iterator]) {
    const keys = Object.getOwnPropertyNames(holder).filter((key) => !HIDDEN.test(key));
    for (const key of [...keys, Symbol.iterator].filter((key) => Object.hasOwn(holder, key))) {
      const { value } = Object.getOwnPropertyDescriptor(holder, key);
      if (typeof value === "function") seen.add(value);
    }
  }
  return seen;
}

const FIRST = first(), HARMLESS = harmless();

class Judge extends Wire {
  get strict() {
    return true;
  }

  lend(value) {
    if (FIRST.has(value) && !HARMLESS.has(value)) throw new TypeError("the program may not have this");
    return super.lend(value);
  }

  admit(what, forms) {
    if (!SERVED.has(what) || !Array.isArray(forms[0]) || forms[0][0] !== "y") throw new TypeError("not to be had");
  }

  serve(what, args) {
    if (what !== "call") {
      if (FIRST.has(args[0])) throw new TypeError("not to be had");
      if (what === "set" && typeof args[0] === "function") throw new TypeError("only the test's own objects are to be changed");
      if (what !== "new" && (typeof args[1] !== "string" || HIDDEN.test(args[1]))) throw new TypeError("not to be had");
    }
    return super.serve(what, args);
  }
}
