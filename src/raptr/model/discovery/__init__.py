"""Find the stacks of a model, and verify on a copy without memory that their layers can be skipped."""
