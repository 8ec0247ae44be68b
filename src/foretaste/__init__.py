"""foretaste: train language-model agents that know early whether they are going wrong."""
