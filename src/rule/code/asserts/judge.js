// Runs the tests in an interpreter that the program never enters, and reports each on standard error,
// a line of JSON each. What the tests do not define they get from the program, through the wire.
const assert = require("assert");
const HIDDEN = /^(__|constructor$|prototype$|caller$|callee$|arguments$)/;

class Judge extends Wire {
  // The program uses what it was given: never its constructor or prototype.
  serve(what, args) {
    if ((what === "get" || what === "set" || what === "has") && HIDDEN.test(String(args[1]))) throw new TypeError(`${args[1]} is not to be had`);
    return super.serve(what, args);
  }
}

const judge = new Judge(0, 1);
const tell = (line) => fs.writeSync(2, JSON.stringify(line) + "\n");
const tests = JSON.parse(fs.readFileSync("/box/tests.json", "utf8"));

// The names that a test may mean. The language's own are not the program's to replace.
function names(text) {
  const found = new Set(text.match(/[A-Za-z_$][\w$]*/g) || []);
  return [...found].filter((name) => !(name in globalThis) && name !== "assert" && name !== "require");
}

tell({ ready: true });
const quiet = new Proxy({}, { get: () => () => {} });
const compiled = (text, names) => new vm.Script(`(function(${names.join(", ")}) { {\n${text}\n} })`, { filename: "test" });

for (const [index, text] of tests.entries()) {
  const scope = { assert, require, console: quiet };
  try {
    compiled(text, Object.keys(scope));
  } catch (error) {
    tell({ test: index, fault: String(error) });
    break;
  }
  try {
    for (const name of names(text)) {
      const [there, value] = judge.ask("global", name);
      if (there) scope[name] = value;
    }
    compiled(text, Object.keys(scope)).runInThisContext()(...Object.values(scope));
    if (judge.gone) throw new Gone("the program ended");
    tell({ test: index, passed: true });
  } catch (error) {
    const shown = String((error && error.message) || error).slice(0, 500);
    tell({ test: index, passed: false, error: shown, gone: judge.gone });
  }
  if (judge.gone) break;
}
process.exit(0);
