"""Pipelines under Airflow 3, one task a stage.

`describe` says what Airflow must know of a pipeline; `dag_file` writes it as a DAG file, and `factory` makes
DAGs and task groups of it in DAG files of people's own. `factory`, `description` and `stage` need nothing but
the standard library and airflow.sdk, for they run where kerasline's dependencies are not.
"""
