"""Pipelines under Airflow 3, with a task for each stage.

`describe` derives from a pipeline what Airflow has to know. `dag_file` writes that as a DAG file, and `factory` builds
DAGs and task groups from it in the user's own DAG files. `factory`, `description` and `stage` only need the standard
library and airflow.sdk, because they run where kerasline's dependencies are not installed.
"""
