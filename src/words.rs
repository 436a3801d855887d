//! Enums whose values have a word each: in datasets, recipes, rule files and metrics.

/// Declares such an enum: `/// docs … pub enum Name { /// docs … Variant = "word" | "another program's word", }`.
///
/// Its words stand there and nowhere else: `ALL`, `as_str`, `parse` and serde's form are made of them.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $word:literal $(| $other:literal)* ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        $vis enum $name {
            $( $(#[$variant_meta])* #[serde(rename = $word $(, alias = $other)*)] $variant, )+
        }

        #[allow(dead_code, reason = "not every enum needs all of them")]
        impl $name {
            /// Every value, in the order of their declaration.
            pub const ALL: [$name; [$(stringify!($variant)),+].len()] = [$($name::$variant),+];

            /// The word of the value.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            /// The value of that word, or of another that programs have for it.
            pub fn parse(word: &str) -> Option<$name> {
                match word { $($word $(| $other)* => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    words! {
        #[derive(Default)]
        enum Light {
            #[default]
            Red = "red" | "rot",
            Green = "green",
        }
    }

    #[test]
    fn words_are_read_and_written_alike_by_all_that_knows_them() {
        for light in Light::ALL {
            assert_eq!(Light::parse(light.as_str()), Some(light));
            assert_eq!(serde_json::to_value(light).unwrap(), light.as_str());
            assert_eq!(serde_json::from_value::<Light>(light.as_str().into()).unwrap(), light);
        }
        assert_eq!((Light::parse("rot"), Light::parse("Red")), (Some(Light::default()), None));
        assert_eq!(serde_json::from_str::<Light>("\"rot\"").unwrap(), Light::Red);
        assert_eq!(Light::Red.as_str(), "red");
    }
}
