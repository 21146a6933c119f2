//! Kernels as text, before they are compiled.

use crate::{Architecture, Element, operation};

/// What precedes every kernel.
const COMMON: &str = include_str!("../kernels/common.cuh");

/// One kernel with its constants: what NVRTC compiles.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// The function's name, and its file's.
    name: &'static str,
    /// The file's text.
    text: &'static str,
    /// Names and values for the preprocessor, from Rust's constants.
    defines: Vec<(&'static str, String)>,
    /// The one architecture whose instructions it uses, if it does not run on all.
    only: Option<Architecture>,
}

impl Kernel {
    pub(crate) fn new<T: Element>(name: &'static str, text: &'static str) -> Self {
        Self { name, text, defines: vec![(T::DEFINE, "1".to_owned())], only: None }
    }

    /// It uses instructions that only this architecture has.
    pub(crate) fn only_on(mut self, architecture: Architecture) -> Self {
        self.only = Some(architecture);
        self
    }

    pub(crate) fn define(mut self, name: &'static str, value: u32) -> Self {
        self.defines.push((name, value.to_string()));
        self
    }

    /// The function's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it can be compiled for an architecture.
    pub fn runs_on(&self, architecture: Architecture) -> bool {
        self.only.is_none_or(|only| only == architecture)
    }

    /// Name and constants, for people.
    pub fn title(&self) -> String {
        let defines = self.defines.iter().map(|(name, value)| match name.strip_prefix("ELEMENT_") {
            Some(element) => element.to_lowercase(),
            None => format!("{name}={value}"),
        });
        std::iter::once(self.name.to_owned()).chain(defines).collect::<Vec<_>>().join(" ")
    }

    /// The whole text.
    pub fn source(&self) -> String {
        format!("{COMMON}\n#line 1 \"{}.cu\"\n{}", self.name, self.text)
    }

    /// Options for the compiler, its target aside.
    pub fn options(&self) -> Vec<String> {
        // No product is fused with a sum, no denormal becomes zero, quotients and roots are rounded correctly.
        let rounding = ["--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "--std=c++17"];
        let defines = self.defines.iter().map(|(name, value)| format!("-D{name}={value}"));
        rounding.iter().map(|option| (*option).to_owned()).chain(defines).collect()
    }
}

/// Every kernel of this crate in every variant, for checks without a GPU.
pub fn all_kernels() -> Vec<Kernel> {
    operation::kernels()
}
