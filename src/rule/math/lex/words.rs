//! The words and commands the lexer knows.

use super::super::ast::{Func, Func2, Node, Numbers, Rel};
use super::{Delim, Tok};

pub(super) fn is_text_command(name: &str) -> bool {
    matches!(
        name,
        "text"
            | "mbox"
            | "hbox"
            | "textbf"
            | "textit"
            | "textrm"
            | "textsf"
            | "texttt"
            | "mathrm"
            | "rm"
            | "operatorname"
            | "textnormal"
            | "emph"
            | "mathit"
            | "mathsf"
            | "mathtt"
            | "textup"
            | "textsc"
            | "textsl"
            | "textmd"
    )
}

/// True for the name of a command that LaTeX answers are written with.
pub fn is_command(name: &str) -> bool {
    let token = || !matches!(command_token(name), Command::Name);
    matches!(name, "left" | "right" | "begin" | "end" | "mathbb") || is_text_command(name) || token()
}

/// True for a command that an operand or an argument must follow.
pub fn wants_more(name: &str) -> bool {
    use Tok::*;
    if matches!(name, "left" | "begin") || is_text_command(name) {
        return true;
    }
    let Command::Token(tok) = command_token(name) else { return false };
    matches!(tok, Times | Div | PlusMinus(_) | Rel(_) | Cup | Cap | SetMinus | Frac | Sqrt | Binom | Choose | Over)
        || matches!(tok, Series(_) | Tok::Func(_) | Tok::Func2(_) | Log | Logic(_) | Not | Transparent | Open(_))
}

pub(super) fn keyword<'a>(run: &str) -> Option<Tok<'a>> {
    use Func::*;
    Some(match run {
        "sin" => Tok::Func(Sin),
        "cos" => Tok::Func(Cos),
        "tan" | "tg" => Tok::Func(Tan),
        "cot" | "ctg" => Tok::Func(Cot),
        "sec" => Tok::Func(Sec),
        "csc" | "cosec" => Tok::Func(Csc),
        "arcsin" | "asin" => Tok::Func(Asin),
        "arccos" | "acos" => Tok::Func(Acos),
        "arctan" | "atan" | "arctg" => Tok::Func(Atan),
        "arccot" | "acot" => Tok::Func(Acot),
        "arcsec" => Tok::Func(Asec),
        "arccsc" => Tok::Func(Acsc),
        "sinh" => Tok::Func(Sinh),
        "cosh" => Tok::Func(Cosh),
        "tanh" => Tok::Func(Tanh),
        "coth" => Tok::Func(Coth),
        "arcsinh" | "asinh" | "arsinh" => Tok::Func(Asinh),
        "arccosh" | "acosh" => Tok::Func(Acosh),
        "arctanh" | "atanh" | "artanh" => Tok::Func(Atanh),
        "exp" => Tok::Func(Exp),
        "ln" => Tok::Func(Ln),
        "log" => Tok::Log,
        "lg" => Tok::Func(Log10),
        "abs" | "Abs" => Tok::Func(Abs),
        "floor" => Tok::Func(Floor),
        "ceil" | "ceiling" => Tok::Func(Ceil),
        "sgn" | "sign" => Tok::Func(Sign),
        "conj" => Tok::Func(Conj),
        "arg" => Tok::Func(Arg),
        "gcd" => Tok::Func2(Func2::Gcd),
        "lcm" => Tok::Func2(Func2::Lcm),
        "binom" | "binomial" => Tok::Func2(Func2::Binomial),
        "sqrt" => Tok::Sqrt,
        "pi" | "Pi" => Tok::Atom(Node::Pi),
        "infty" | "infinity" | "inf" | "oo" | "Infinity" => Tok::Atom(Node::Infinity),
        "or" | "ou" | "oder" => Tok::Or,
        "and" | "et" | "und" => Tok::And,
        "mod" => Tok::Mod,
        "union" => Tok::Cup,
        "deg" | "degree" | "degrees" => Tok::Degree,
        "percent" => Tok::Percent,
        "per" => Tok::Div,
        "is" | "equals" => Tok::Rel(Rel::Eq),
        _ => return None,
    })
}

/// What a LaTeX command means.
pub(super) enum Command<'a> {
    Token(Tok<'a>),
    Space,
    Name,
}

pub(super) fn command_token<'a>(name: &str) -> Command<'a> {
    let token = match name {
        "frac" | "dfrac" | "tfrac" | "cfrac" | "nicefrac" | "sfrac" => Tok::Frac,
        "sqrt" => Tok::Sqrt,
        "binom" | "dbinom" | "tbinom" => Tok::Binom,
        "choose" => Tok::Choose,
        "over" => Tok::Over,
        "colon" => Tok::Colon,
        "det" => Tok::Func(Func::Abs),
        "pi" => Tok::Atom(Node::Pi),
        "infty" => Tok::Atom(Node::Infinity),
        "R" | "reals" | "Reals" => Tok::Atom(Node::Numbers(Numbers::Reals)),
        "Z" => Tok::Atom(Node::Numbers(Numbers::Integers)),
        "N" => Tok::Atom(Node::Numbers(Numbers::Naturals)),
        "Q" => Tok::Atom(Node::Numbers(Numbers::Rationals)),
        "emptyset" | "varnothing" => Tok::Atom(Node::Numbers(Numbers::Empty)),
        "cdot" | "times" | "ast" | "bullet" | "cdotp" | "centerdot" => Tok::Times,
        "div" => Tok::Div,
        "pm" => Tok::PlusMinus(true),
        "mp" => Tok::PlusMinus(false),
        "le" | "leq" | "leqslant" | "leqq" | "ngtr" => Tok::Rel(Rel::Le),
        "ge" | "geq" | "geqslant" | "geqq" | "nless" => Tok::Rel(Rel::Ge),
        "lt" | "ngeq" => Tok::Rel(Rel::Lt),
        "gt" | "nleq" => Tok::Rel(Rel::Gt),
        "ne" | "neq" => Tok::Rel(Rel::Ne),
        "approx" | "simeq" | "doteq" => Tok::Rel(Rel::Approx),
        "equiv" => Tok::Rel(Rel::Congruent),
        "cong" => Tok::Rel(Rel::CongruentShape),
        "sim" => Tok::Rel(Rel::Similar),
        "perp" => Tok::Rel(Rel::Perpendicular),
        "parallel" => Tok::Rel(Rel::Parallel),
        "propto" => Tok::Rel(Rel::Proportional),
        "to" | "rightarrow" | "implies" | "Rightarrow" | "longrightarrow" | "mapsto" => Tok::Rel(Rel::Arrow),
        "iff" | "Leftrightarrow" | "leftrightarrow" => Tok::Rel(Rel::Iff),
        "in" => Tok::Rel(Rel::In),
        "notin" => Tok::Rel(Rel::NotIn),
        "subset" | "subseteq" => Tok::Rel(Rel::Subset),
        "supset" | "supseteq" => Tok::Rel(Rel::Superset),
        "subsetneq" | "subsetneqq" => Tok::Rel(Rel::ProperSubset),
        "nsubseteq" => Tok::Rel(Rel::NotSubset),
        "cup" | "bigcup" => Tok::Cup,
        "cap" | "bigcap" => Tok::Cap,
        "setminus" | "backslash" => Tok::SetMinus,
        "lfloor" => Tok::Open(Delim::Floor),
        "rfloor" => Tok::Close(Delim::Floor),
        "lceil" => Tok::Open(Delim::Ceil),
        "rceil" => Tok::Close(Delim::Ceil),
        "langle" => Tok::Open(Delim::Angle),
        "rangle" => Tok::Close(Delim::Angle),
        "lbrace" => Tok::Open(Delim::Set),
        "rbrace" => Tok::Close(Delim::Set),
        "lbrack" => Tok::Open(Delim::Bracket),
        "rbrack" => Tok::Close(Delim::Bracket),
        "lvert" | "lVert" => Tok::Open(Delim::Bar),
        "rvert" | "rVert" => Tok::Close(Delim::Bar),
        "vert" | "Vert" => Tok::Bar,
        "mid" => Tok::SuchThat,
        "degree" | "circ" | "textdegree" => Tok::Degree,
        "percent" => Tok::Percent,
        "prime" => Tok::Prime,
        "sum" => Tok::Series(false),
        "prod" => Tok::Series(true),
        "lor" | "vee" => Tok::Logic(true),
        "land" | "wedge" => Tok::Logic(false),
        "neg" | "lnot" => Tok::Not,
        "dots" | "ldots" | "cdots" | "dotsc" | "dotsb" | "dotsm" | "dotso" | "vdots" | "ddots" => Tok::Dots,
        "max" => Tok::Func2(Func2::Max),
        "min" => Tok::Func2(Func2::Min),
        "Re" => Tok::Func(Func::Re),
        "Im" => Tok::Func(Func::Im),
        "cr" | "newline" => Tok::Row,
        "overline" | "bar" | "vec" | "overrightarrow" | "hat" | "widehat" | "tilde" | "mathbf" | "boldsymbol"
        | "bm" | "mathcal" | "underline" | "boxed" | "fbox" | "mathfrak" | "pmb" | "dot" | "ddot" | "overset"
        | "bold" | "mathop" | "mathord" | "ensuremath" | "smash" | "mathscr" | "framebox" | "bbox" => Tok::Transparent,
        "quad" | "qquad" | "displaystyle" | "textstyle" | "limits" | "nolimits" | "hfill" | "hline" | "normalsize"
        | "large" | "Large" | "small" | "bf" | "it" | "thinspace" | "par" | "nonumber" | "notag" | "null"
        | "therefore" | "because" | "checkmark" | "blacksquare" | "qedhere" | "allowbreak" | "nobreak" | "space"
        | "thickspace" | "medspace" | "negthinspace" | "huge" | "Huge" | "LARGE" | "tiny" | "footnotesize"
        | "scriptsize" | "scriptstyle" | "scriptscriptstyle" | "strut" | "mathstrut" | "relax" | "centering"
        | "qed" => {
            return Command::Space;
        }
        _ => match keyword(name) {
            Some(tok) => tok,
            None => return Command::Name,
        },
    };
    Command::Token(token)
}
