// Runs the tests in an interpreter that the program never enters, and reports each on standard error,
// a line of JSON each. What the tests do not define they get from the program, through the wire.
const judge = new Judge(0, 1);
const tell = (line) => fs.writeSync(2, JSON.stringify(line) + "\n");
const tests = JSON.parse(fs.readFileSync("/box/tests.json", "utf8"));

const compiled = (text, names) => new vm.Script(`(function(${names.join(", ")}) { {\n${text}\n} })`, { filename: "test" });

function isName(word) {
  try {
    return Boolean(compiled("", [word]));
  } catch (error) {
    return false; // A word of the language: `null`, `const`.
  }
}

// The names that a test may mean. The language's own are not the program's to replace.
function names(text) {
  const found = new Set(text.match(/[A-Za-z_$][\w$]*/g) || []);
  return [...found].filter((name) => !(name in globalThis) && name !== "assert" && name !== "require" && isName(name));
}

// Why a test cannot be run apart from the program, if it cannot: told from the test alone.
function unsupported(text) {
  const later = text.match(/\b(await|async|rejects|doesNotReject|setTimeout|setInterval|setImmediate)\b|\.then\s*\(/);
  if (later) return `${later[0]}: what comes later is not waited for`;
  const evaluates = text.match(/\b(eval|Function\s*\(|vm)\b/);
  if (evaluates) return `${evaluates[0]} would run the program's text here`;
  for (const [, name, base] of text.matchAll(/\bclass\s+([\w$]+)\s+extends\s+([A-Za-z_$][\w$]*)/g)) {
    const own = new RegExp(`\\b(class|function|const|let|var)\\s+${base.replaceAll("$", "\\$")}(?![\\w$])`);
    if (!(base in globalThis) && !own.test(text)) return `class ${name} extends the program's ${base}`;
  }
  return names(text).length ? null : "it asks nothing of the program";
}

tell({ ready: true });
const quiet = new Proxy({}, { get: () => () => {} });

// A test that cannot be run is found before the program is asked for anything.
function faulty() {
  for (const [index, text] of tests.entries()) {
    const refused = unsupported(text);
    if (refused) return { test: index, unsupported: refused };
    try {
      compiled(text, ["assert", "require", "console"]);
    } catch (error) {
      return { test: index, fault: String(error) };
    }
  }
}

function run(text) {
  const scope = { assert, require, console: quiet };
  for (const name of names(text)) {
    const answer = judge.ask("global", name);
    if (Array.isArray(answer) && answer[0] === true) scope[name] = answer[1];
  }
  compiled(text, Object.keys(scope)).runInThisContext()(...Object.values(scope));
  if (judge.gone) throw new Gone("the program ended");
}

const found = faulty();
if (found) tell(found);
for (const [index, text] of found ? [] : tests.entries()) {
  try {
    run(text);
    tell({ test: index, passed: true });
  } catch (error) {
    const shown = String((error && error.message) || error).slice(0, 500);
    tell({ test: index, passed: false, error: shown, gone: judge.gone });
  }
  if (judge.gone) break;
}
process.exit(0);
