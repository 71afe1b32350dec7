"""The settings of a cluster: one YAML file, the same for all its nodes.

* `schema`: every knob, its meaning, unit, default, and when to change it. What all rooms import.
* `backends`: what each storage backend can do.
* `values`: the kinds of values (sizes, durations, ...) and how people write them.
* `rules`: what must hold between several knobs.
* `promise`: what an acknowledgement rests on, in words.
* `load`: YAML + environment + overrides -> `Settings`, or `ConfigFault` with all faults at once.
* `exposure`: whether others can read the secrets.
* `document`, `knobs`: YAML that remembers its lines; the schema as a list.
* `describe`: the settings in force, as YAML.
* `*.yaml`: clusters that start as they are, from one node to eight. README.md: the reference.

What may not be here: anything that a running node decides or learns. Settings are frozen, and a
process reads them once. Storage and cluster import `schema` alone; who loads a file is the node.

Trade-offs. One file describes the whole cluster, rather than one file for each node: nodes that
disagree on their members or partitions are the worst kind of fault, and a single file cannot.
Kinds sit in the types of the fields (`Annotated`), so that what a knob means, what it may be and how
it is written are read in one place. A validation library would bring the same and a dependency, and
none knows the lines of a YAML file, which is what someone with a typo wants to be told.
"""
