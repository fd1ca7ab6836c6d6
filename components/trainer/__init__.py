"""How a built model is trained: what `kerasline.components.trainer.component` is made of.

`job` says what is to be done, `training` does it; each other file is one setting or one duty.
"""
