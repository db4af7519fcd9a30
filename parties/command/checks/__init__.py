"""The dry run: what is looked at before anything is trained, and what to do about what fails.

Nothing is trained, nothing is written. A check that failed says what was seen, what was wanted and what to do. What
cannot be looked at, as what it needs has failed, is left out.

| name | what is looked at |
|---|---|
| `versions` | Python, JAX and this library; on devices also SecretFlow, whose version must be the one that is known |
| `study` | the study can be read; else the key at fault |
| `own` | the party's own file can be read; else the key at fault |
| `party` | the own file is that of a party of the study, and of the party that was asked for |
| `out` | the run's folder has no model and no checkpoints, and can be written to |
| `addresses` | one for each party of the study, as host:port, no two alike |
| `listen` | `listen` of the own file is host:port |
| `port` | this machine can listen at the party's own address, and nobody else does |
| `intersection` | second addresses of two parties, with private set intersection alone |
| `intersection_port` | as `port`, of the second address |
| `tls` | the own file has certificates where the study says so, and only there |
| `tls_files` | certificate, key and authority are PEM files |
| `tls_key_mode` | nobody but its owner can use the key |
| `tls_key` | the key is the certificate's |
| `tls_name` | the certificate is in the party's name |
| `tls_use` | it may be used by clients and by servers |
| `tls_authority` | the authority signed it |
| `tls_dates` | it is valid today; and for how many days |
| `tls_handshake` | a handshake of the party with itself, which is refused for one of these reasons |
| `cache` | the folder of `files.cache` can be written to, and the model can train on rows that are on disk |
| `train_file`, `validation_file`, `test_file` | the file can be read, with its separator |
| `train_ids`, `validation_ids`, `test_ids` | the id column has an id of its own in every row |
| `train_weights`, `validation_weights`, `test_weights` | row weights are numbers, not all zero (label party) |
| `train_labels`, `validation_labels`, `test_labels` | each task's labels are there and of its kind (label party) |
| `train_columns`, `validation_columns`, `test_columns` | each column is there and of its kind |
| `train_rows` | there are rows for a round, beside those that are held out |
| `validation_disjoint`, `test_disjoint` | none of the rows is trained on |
| `memory`, `cache_space`, `out_space` | what a run wants is free, by bytes per row and parameter |
| `reach_PARTY` | something answers as that party at its address |
| `reached_by_PARTY` | that party comes to this party's port |
| `same_study` | all parties have the same study; else the first key that differs |
| `same_versions` | all parties have the same versions |
| `train_same_ids`, `validation_same_ids`, `test_same_ids` | the same ids in the same order; else how many both have |
| `rows_read` | every party could read its rows when all met |
| `round_trip` | how long a message takes to each party and back, and the rounds in flight that hide it |
| `time` | how long training takes, by some rounds of each party's own part with parameters that are thrown away |
| `sends` | what this party sends, in bytes |
| `protected` | what is protected of it, and how far |
"""

from parties.command.checks.alone import check_alone
from parties.command.checks.check import Check, table
from parties.command.checks.reach import check_reach
from parties.command.checks.simulated import check_simulated
from parties.command.checks.together import check_together

__all__ = ["Check", "check_alone", "check_reach", "check_simulated", "check_together", "table"]
