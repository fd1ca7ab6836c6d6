CREATE TABLE public.artifacts (
    id character varying(32) NOT NULL,
    type character varying(100) NOT NULL,
    path text NOT NULL,
    digest character varying(64) NOT NULL,
    size_bytes bigint NOT NULL,
    created timestamp without time zone NOT NULL
);
CREATE TABLE public.events (
    execution_id character varying(32) NOT NULL,
    artifact_id character varying(32) NOT NULL,
    direction character varying(3) NOT NULL,
    name character varying(200) NOT NULL
);
CREATE TABLE public.executions (
    id character varying(32) NOT NULL,
    run_id character varying(100) NOT NULL,
    pipeline character varying(200) NOT NULL,
    node character varying(200) NOT NULL,
    component text NOT NULL,
    state character varying(20) NOT NULL,
    fingerprint character varying(64),
    folder text,
    metrics json NOT NULL,
    message text,
    started timestamp without time zone NOT NULL,
    finished timestamp without time zone,
    seconds double precision
);
CREATE TABLE public.file_digests (
    path character varying(1000) NOT NULL,
    size bigint NOT NULL,
    mtime_ns bigint NOT NULL,
    digest character varying(64) NOT NULL
);
CREATE TABLE public.runs (
    id character varying(100) NOT NULL,
    pipeline character varying(200) NOT NULL,
    recipe text NOT NULL,
    root text NOT NULL,
    state character varying(20) NOT NULL,
    settings json NOT NULL,
    started timestamp without time zone NOT NULL,
    finished timestamp without time zone,
    seconds double precision
);
INSERT INTO public.artifacts VALUES ('300fb75f0c634398977b973fdcccd6a7', 'Report', '/srv/runs/artifacts/quick/Start/5de042c67a1c-ee517085/report', 'af09e3b9cc81b8d5e8105c54f560f2c632555ffc76b770d71a530ba57088f7a0', 1, '2026-11-25 07:16:30.670882');
INSERT INTO public.artifacts VALUES ('b8263ef08e144909b246693b30565118', 'Report', '/srv/runs/artifacts/quick/Right/3f43838081d2-45c93fc2/right', 'd5d797e6fcdd2c6be583ce03d420b0707722f8230535ca1d8d194b57e38e796c', 1, '2026-11-25 07:16:30.787172');
INSERT INTO public.artifacts VALUES ('04dbba8e84134ca9be8ecb9cc4af61c4', 'Report', '/srv/runs/artifacts/quick/Left/ac11e432e792-8daf221f/left', 'e3e348fd2bbda673e17c2eab6c9754b4fc1c16297a1f1d8ad013b5989a200372', 1, '2026-11-25 07:16:30.814434');
INSERT INTO public.artifacts VALUES ('61ff2d2eb4ab4f56aa1d9b5b0687cb4e', 'Report', '/srv/runs/artifacts/quick/Join/910d50d12e35-a78654bc/joined', 'dd319e4577d7100905494cd2baefe204b64646d2768f492debeb40f5317ca742', 3, '2026-11-25 07:16:30.895824');
INSERT INTO public.artifacts VALUES ('523ffc6c3e26433f9f47de878cc3d13f', 'Report', '/srv/runs/artifacts/quick/Start/bb319685c772-0728c531/report', '9fefeeb8abf77d4eea56d494677118f2022d9b601424f9edbff7af1282853072', 1, '2026-11-25 07:16:39.712814');
INSERT INTO public.artifacts VALUES ('11251a7819764a0bb35edabec512e551', 'Report', '/srv/runs/artifacts/quick/Right/2c234d883489-902a9ddf/right', '3c994f5f10d63481a34753e1e0a20e4c682a74f08d44769cfdfc4a6f61203416', 1, '2026-11-25 07:16:39.912872');
INSERT INTO public.events VALUES ('8bf1a3c7bbe34b5cbddea8b44ba7d2a2', '300fb75f0c634398977b973fdcccd6a7', 'out', 'report');
INSERT INTO public.events VALUES ('a2d280cfa04f4ad588bd8e7ea3e8f9c5', '300fb75f0c634398977b973fdcccd6a7', 'in', 'report');
INSERT INTO public.events VALUES ('a2d280cfa04f4ad588bd8e7ea3e8f9c5', 'b8263ef08e144909b246693b30565118', 'out', 'right');
INSERT INTO public.events VALUES ('07f50c9a6f97439abc706ca4652112e6', '300fb75f0c634398977b973fdcccd6a7', 'in', 'report');
INSERT INTO public.events VALUES ('07f50c9a6f97439abc706ca4652112e6', '04dbba8e84134ca9be8ecb9cc4af61c4', 'out', 'left');
INSERT INTO public.events VALUES ('cffe4a6de4344451b9ef019e66c703be', '04dbba8e84134ca9be8ecb9cc4af61c4', 'in', 'left');
INSERT INTO public.events VALUES ('cffe4a6de4344451b9ef019e66c703be', 'b8263ef08e144909b246693b30565118', 'in', 'right');
INSERT INTO public.events VALUES ('cffe4a6de4344451b9ef019e66c703be', '61ff2d2eb4ab4f56aa1d9b5b0687cb4e', 'out', 'joined');
INSERT INTO public.events VALUES ('3a83d6f5861842179f3d90bcad6778f4', '300fb75f0c634398977b973fdcccd6a7', 'out', 'report');
INSERT INTO public.events VALUES ('fdda096c89cc4841b88a0ecded96c3eb', '300fb75f0c634398977b973fdcccd6a7', 'in', 'report');
INSERT INTO public.events VALUES ('fdda096c89cc4841b88a0ecded96c3eb', '04dbba8e84134ca9be8ecb9cc4af61c4', 'out', 'left');
INSERT INTO public.events VALUES ('0af587f63ea2460bbacbd8287192fe93', '300fb75f0c634398977b973fdcccd6a7', 'in', 'report');
INSERT INTO public.events VALUES ('0af587f63ea2460bbacbd8287192fe93', 'b8263ef08e144909b246693b30565118', 'out', 'right');
INSERT INTO public.events VALUES ('df9473e5949747a8ae766b82b0ab0886', '04dbba8e84134ca9be8ecb9cc4af61c4', 'in', 'left');
INSERT INTO public.events VALUES ('df9473e5949747a8ae766b82b0ab0886', 'b8263ef08e144909b246693b30565118', 'in', 'right');
INSERT INTO public.events VALUES ('df9473e5949747a8ae766b82b0ab0886', '61ff2d2eb4ab4f56aa1d9b5b0687cb4e', 'out', 'joined');
INSERT INTO public.events VALUES ('a6f898a02c8c498aa8a57777780874c0', '523ffc6c3e26433f9f47de878cc3d13f', 'out', 'report');
INSERT INTO public.events VALUES ('3642827287b441ee8f897ab77808d786', '523ffc6c3e26433f9f47de878cc3d13f', 'in', 'report');
INSERT INTO public.events VALUES ('233377ea87cc44e79461cfb55f881165', '523ffc6c3e26433f9f47de878cc3d13f', 'in', 'report');
INSERT INTO public.events VALUES ('233377ea87cc44e79461cfb55f881165', '11251a7819764a0bb35edabec512e551', 'out', 'right');
INSERT INTO public.executions VALUES ('8bf1a3c7bbe34b5cbddea8b44ba7d2a2', 'first', 'quick', 'Start', 'quick_0bb37b8b.Start', 'ran', '5de042c67a1cb77faad3af1032cdf7cbbe545897385f2c7fc46ac41b1cb9ab23', '/srv/runs/artifacts/quick/Start/5de042c67a1c-ee517085', '{"number": 2}', NULL, '2026-11-25 07:16:30.620068', '2026-11-25 07:16:30.670954', 0.05090188299982401);
INSERT INTO public.executions VALUES ('a2d280cfa04f4ad588bd8e7ea3e8f9c5', 'first', 'quick', 'Right', 'quick_0bb37b8b.Right', 'ran', '3f43838081d20e829ee4b3e9f07fad161e00322e2d49c182f29aee1b38e1c7f5', '/srv/runs/artifacts/quick/Right/3f43838081d2-45c93fc2', '{}', NULL, '2026-11-25 07:16:30.738037', '2026-11-25 07:16:30.787216', 0.04919620100008615);
INSERT INTO public.executions VALUES ('07f50c9a6f97439abc706ca4652112e6', 'first', 'quick', 'Left', 'quick_0bb37b8b.Left', 'ran', 'ac11e432e792d198482bffe52ade1e6e477507c6564d46170208a830dab3be6e', '/srv/runs/artifacts/quick/Left/ac11e432e792-8daf221f', '{}', NULL, '2026-11-25 07:16:30.742393', '2026-11-25 07:16:30.814488', 0.07211288600046828);
INSERT INTO public.executions VALUES ('cffe4a6de4344451b9ef019e66c703be', 'first', 'quick', 'Join', 'quick_0bb37b8b.Join', 'ran', '910d50d12e35697efc7b7507a41b0fdeb477d4977ac38f34b69dbc9f22481690', '/srv/runs/artifacts/quick/Join/910d50d12e35-a78654bc', '{"joined": 603}', NULL, '2026-11-25 07:16:30.874083', '2026-11-25 07:16:30.895875', 0.021811403001265717);
INSERT INTO public.executions VALUES ('3a83d6f5861842179f3d90bcad6778f4', 'second', 'quick', 'Start', 'quick_0bb37b8b.Start', 'cached', '5de042c67a1cb77faad3af1032cdf7cbbe545897385f2c7fc46ac41b1cb9ab23', '/srv/runs/artifacts/quick/Start/5de042c67a1c-ee517085', '{"number": 2}', NULL, '2026-11-25 07:16:33.56449', '2026-11-25 07:16:33.594657', 0);
INSERT INTO public.executions VALUES ('fdda096c89cc4841b88a0ecded96c3eb', 'second', 'quick', 'Left', 'quick_0bb37b8b.Left', 'cached', 'ac11e432e792d198482bffe52ade1e6e477507c6564d46170208a830dab3be6e', '/srv/runs/artifacts/quick/Left/ac11e432e792-8daf221f', '{}', NULL, '2026-11-25 07:16:33.630615', '2026-11-25 07:16:33.683224', 0);
INSERT INTO public.executions VALUES ('0af587f63ea2460bbacbd8287192fe93', 'second', 'quick', 'Right', 'quick_0bb37b8b.Right', 'cached', '3f43838081d20e829ee4b3e9f07fad161e00322e2d49c182f29aee1b38e1c7f5', '/srv/runs/artifacts/quick/Right/3f43838081d2-45c93fc2', '{}', NULL, '2026-11-25 07:16:33.712066', '2026-11-25 07:16:33.715115', 0);
INSERT INTO public.executions VALUES ('df9473e5949747a8ae766b82b0ab0886', 'second', 'quick', 'Join', 'quick_0bb37b8b.Join', 'cached', '910d50d12e35697efc7b7507a41b0fdeb477d4977ac38f34b69dbc9f22481690', '/srv/runs/artifacts/quick/Join/910d50d12e35-a78654bc', '{"joined": 603}', NULL, '2026-11-25 07:16:33.760146', '2026-11-25 07:16:33.790956', 0);
INSERT INTO public.executions VALUES ('a6f898a02c8c498aa8a57777780874c0', 'third', 'quick', 'Start', 'quick_0bb37b8b.Start', 'ran', 'bb319685c77225a5e51b156b7c6cf52174fdb9950bc16212d1c375ddff95375e', '/srv/runs/artifacts/quick/Start/bb319685c772-0728c531', '{"number": 7}', NULL, '2026-11-25 07:16:39.657057', '2026-11-25 07:16:39.712877', 0.05583689999912167);
INSERT INTO public.executions VALUES ('3642827287b441ee8f897ab77808d786', 'third', 'quick', 'Left', 'quick_0bb37b8b.Left', 'failed', NULL, NULL, '{}', 'row 3 is upside down; turn it', '2026-11-25 07:16:39.819622', '2026-11-25 07:16:39.879928', 0.06031815400092455);
INSERT INTO public.executions VALUES ('233377ea87cc44e79461cfb55f881165', 'third', 'quick', 'Right', 'quick_0bb37b8b.Right', 'ran', '2c234d8834893182b5cba5ed0f8bbcc5144802811b711c713cf2cca0a677a296', '/srv/runs/artifacts/quick/Right/2c234d883489-902a9ddf', '{}', NULL, '2026-11-25 07:16:39.831986', '2026-11-25 07:16:39.912929', 0.08095595399936428);
INSERT INTO public.executions VALUES ('cfaf7672c7a74cab9f5ef016bf5de6f0', 'third', 'quick', 'Join', 'quick_0bb37b8b.Join', 'skipped', NULL, NULL, '{}', 'not run, because Left failed', '2026-11-25 07:16:39.959855', '2026-11-25 07:16:40.030848', 0.07100259700018796);
INSERT INTO public.file_digests VALUES ('/srv/trips.csv', 17, 1764000000000000000, 'abababababababababababababababababababababababababababababababab');
INSERT INTO public.runs VALUES ('first', 'quick', 'quick.py', '/srv/runs', 'succeeded', '{}', '2026-11-25 07:16:28.283107', '2026-11-25 07:16:30.928747', 2.645676938998804);
INSERT INTO public.runs VALUES ('second', 'quick', 'quick.py', '/srv/runs', 'succeeded', '{}', '2026-11-25 07:16:33.522568', '2026-11-25 07:16:33.802276', 0.27970319199994265);
INSERT INTO public.runs VALUES ('third', 'quick', 'quick.py', '/srv/runs', 'failed', '{"Left.fail": "true", "Start.number": "7"}', '2026-11-25 07:16:35.567382', '2026-11-25 07:16:40.066931', 4.495169652998811);
ALTER TABLE ONLY public.artifacts
    ADD CONSTRAINT artifacts_path_key UNIQUE (path);
ALTER TABLE ONLY public.artifacts
    ADD CONSTRAINT artifacts_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (execution_id, artifact_id, direction, name);
ALTER TABLE ONLY public.executions
    ADD CONSTRAINT executions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.executions
    ADD CONSTRAINT executions_run_id_node_key UNIQUE (run_id, node);
ALTER TABLE ONLY public.file_digests
    ADD CONSTRAINT file_digests_pkey PRIMARY KEY (path);
ALTER TABLE ONLY public.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (id);
CREATE INDEX ix_events_artifact_id ON public.events USING btree (artifact_id);
CREATE INDEX ix_executions_fingerprint ON public.executions USING btree (fingerprint);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_artifact_id_fkey FOREIGN KEY (artifact_id) REFERENCES public.artifacts(id);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_execution_id_fkey FOREIGN KEY (execution_id) REFERENCES public.executions(id);
ALTER TABLE ONLY public.executions
    ADD CONSTRAINT executions_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.runs(id);
