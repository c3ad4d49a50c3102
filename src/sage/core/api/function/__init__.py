"""The contracts of functions, a module for each kind; they live in `sage.dataflow.function`."""
