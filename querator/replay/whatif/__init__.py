"""What if: recorded traffic under another policy, through the production core under a virtual clock.

``traffic`` reads from a log who produced what, how long each attempt took and how it ended, and when
consumers asked; ``simulation`` lets that happen again; ``measures`` says what it was like, of the log and
of a simulation by the same code; ``verdict`` compares the two: where the model is not the log, nothing is
predicted.
"""
