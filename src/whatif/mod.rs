//! The same decision core against a modelled world on virtual time.
