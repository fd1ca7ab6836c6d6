BEGIN TRANSACTION;
CREATE TABLE artifacts (
	id VARCHAR(32) NOT NULL, 
	type VARCHAR(100) NOT NULL, 
	path TEXT NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	created DATETIME NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (path)
);
INSERT INTO "artifacts" VALUES('1436ff1b2cc24ad5a0351293fc900d0a','Report','/srv/runs/artifacts/quick/Start/5de042c67a1c-e0b2c686/report','af09e3b9cc81b8d5e8105c54f560f2c632555ffc76b770d71a530ba57088f7a0',1,'2026-11-25 07:16:46.858866');
INSERT INTO "artifacts" VALUES('5be0d2c3c1bf4856bb2bbac876cf6c1f','Report','/srv/runs/artifacts/quick/Left/ac11e432e792-824f7272/left','e3e348fd2bbda673e17c2eab6c9754b4fc1c16297a1f1d8ad013b5989a200372',1,'2026-11-25 07:16:47.007267');
INSERT INTO "artifacts" VALUES('3078a08355f0487eabd392beac7c6638','Report','/srv/runs/artifacts/quick/Right/3f43838081d2-7637b0e4/right','d5d797e6fcdd2c6be583ce03d420b0707722f8230535ca1d8d194b57e38e796c',1,'2026-11-25 07:16:47.044496');
INSERT INTO "artifacts" VALUES('d46e87b570264de5adf60d530f479105','Report','/srv/runs/artifacts/quick/Join/910d50d12e35-a56ff943/joined','dd319e4577d7100905494cd2baefe204b64646d2768f492debeb40f5317ca742',3,'2026-11-25 07:16:47.200739');
INSERT INTO "artifacts" VALUES('f6d3b056bd614bffb3a2d06f4835246e','Report','/srv/runs/artifacts/quick/Start/bb319685c772-fa3e5307/report','9fefeeb8abf77d4eea56d494677118f2022d9b601424f9edbff7af1282853072',1,'2026-11-25 07:16:55.302874');
INSERT INTO "artifacts" VALUES('72ce2bfaa09940b5baefe953ec381ac6','Report','/srv/runs/artifacts/quick/Right/2c234d883489-f613968c/right','3c994f5f10d63481a34753e1e0a20e4c682a74f08d44769cfdfc4a6f61203416',1,'2026-11-25 07:16:55.529723');
CREATE TABLE events (
	execution_id VARCHAR(32) NOT NULL, 
	artifact_id VARCHAR(32) NOT NULL, 
	direction VARCHAR(3) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	PRIMARY KEY (execution_id, artifact_id, direction, name), 
	FOREIGN KEY(execution_id) REFERENCES executions (id), 
	FOREIGN KEY(artifact_id) REFERENCES artifacts (id)
);
INSERT INTO "events" VALUES('484b1e374bc14a26b627fee0f88eafaa','1436ff1b2cc24ad5a0351293fc900d0a','out','report');
INSERT INTO "events" VALUES('a9668a2c365047edb07220a0b05aa649','1436ff1b2cc24ad5a0351293fc900d0a','in','report');
INSERT INTO "events" VALUES('a9668a2c365047edb07220a0b05aa649','5be0d2c3c1bf4856bb2bbac876cf6c1f','out','left');
INSERT INTO "events" VALUES('8bccf667c944460d99eda081f7cce425','1436ff1b2cc24ad5a0351293fc900d0a','in','report');
INSERT INTO "events" VALUES('8bccf667c944460d99eda081f7cce425','3078a08355f0487eabd392beac7c6638','out','right');
INSERT INTO "events" VALUES('70f14a3d35ce4420a81987d0368c1577','5be0d2c3c1bf4856bb2bbac876cf6c1f','in','left');
INSERT INTO "events" VALUES('70f14a3d35ce4420a81987d0368c1577','3078a08355f0487eabd392beac7c6638','in','right');
INSERT INTO "events" VALUES('70f14a3d35ce4420a81987d0368c1577','d46e87b570264de5adf60d530f479105','out','joined');
INSERT INTO "events" VALUES('f286177967304b3298d72261a38f3344','1436ff1b2cc24ad5a0351293fc900d0a','out','report');
INSERT INTO "events" VALUES('7d00f060b9df4c5a83bec537fb51dfcf','1436ff1b2cc24ad5a0351293fc900d0a','in','report');
INSERT INTO "events" VALUES('7d00f060b9df4c5a83bec537fb51dfcf','5be0d2c3c1bf4856bb2bbac876cf6c1f','out','left');
INSERT INTO "events" VALUES('2468b40c35354ba18f940b4776c16cd2','1436ff1b2cc24ad5a0351293fc900d0a','in','report');
INSERT INTO "events" VALUES('2468b40c35354ba18f940b4776c16cd2','3078a08355f0487eabd392beac7c6638','out','right');
INSERT INTO "events" VALUES('a6fbf2f6cf5e400b9b6e5c1d26a71bc9','5be0d2c3c1bf4856bb2bbac876cf6c1f','in','left');
INSERT INTO "events" VALUES('a6fbf2f6cf5e400b9b6e5c1d26a71bc9','3078a08355f0487eabd392beac7c6638','in','right');
INSERT INTO "events" VALUES('a6fbf2f6cf5e400b9b6e5c1d26a71bc9','d46e87b570264de5adf60d530f479105','out','joined');
INSERT INTO "events" VALUES('98776edb541d426dbf3b08eaee1a30c4','f6d3b056bd614bffb3a2d06f4835246e','out','report');
INSERT INTO "events" VALUES('c679e7d28c6f41e9b0ac7ab3955fa6db','f6d3b056bd614bffb3a2d06f4835246e','in','report');
INSERT INTO "events" VALUES('2e483a5d9f13486fabe1244931766997','f6d3b056bd614bffb3a2d06f4835246e','in','report');
INSERT INTO "events" VALUES('2e483a5d9f13486fabe1244931766997','72ce2bfaa09940b5baefe953ec381ac6','out','right');
CREATE TABLE executions (
	id VARCHAR(32) NOT NULL, 
	run_id VARCHAR(100) NOT NULL, 
	pipeline VARCHAR(200) NOT NULL, 
	node VARCHAR(200) NOT NULL, 
	component TEXT NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	fingerprint VARCHAR(64), 
	folder TEXT, 
	metrics JSON NOT NULL, 
	message TEXT, 
	started DATETIME NOT NULL, 
	finished DATETIME, 
	seconds FLOAT, 
	PRIMARY KEY (id), 
	UNIQUE (run_id, node), 
	FOREIGN KEY(run_id) REFERENCES runs (id)
);
INSERT INTO "executions" VALUES('484b1e374bc14a26b627fee0f88eafaa','first','quick','Start','quick_0bb37b8b.Start','ran','5de042c67a1cb77faad3af1032cdf7cbbe545897385f2c7fc46ac41b1cb9ab23','/srv/runs/artifacts/quick/Start/5de042c67a1c-e0b2c686','{"number": 2}',NULL,'2026-11-25 07:16:46.801437','2026-11-25 07:16:46.858956',5.75375460011855466291e-02);
INSERT INTO "executions" VALUES('a9668a2c365047edb07220a0b05aa649','first','quick','Left','quick_0bb37b8b.Left','ran','ac11e432e792d198482bffe52ade1e6e477507c6564d46170208a830dab3be6e','/srv/runs/artifacts/quick/Left/ac11e432e792-824f7272','{}',NULL,'2026-11-25 07:16:46.931903','2026-11-25 07:16:47.007331',7.544596300067496486e-02);
INSERT INTO "executions" VALUES('8bccf667c944460d99eda081f7cce425','first','quick','Right','quick_0bb37b8b.Right','ran','3f43838081d20e829ee4b3e9f07fad161e00322e2d49c182f29aee1b38e1c7f5','/srv/runs/artifacts/quick/Right/3f43838081d2-7637b0e4','{}',NULL,'2026-11-25 07:16:46.933142','2026-11-25 07:16:47.044563',1.11428145999525440856e-01);
INSERT INTO "executions" VALUES('70f14a3d35ce4420a81987d0368c1577','first','quick','Join','quick_0bb37b8b.Join','ran','910d50d12e35697efc7b7507a41b0fdeb477d4977ac38f34b69dbc9f22481690','/srv/runs/artifacts/quick/Join/910d50d12e35-a56ff943','{"joined": 603}',NULL,'2026-11-25 07:16:47.161179','2026-11-25 07:16:47.200804',3.96409740005765343084e-02);
INSERT INTO "executions" VALUES('f286177967304b3298d72261a38f3344','second','quick','Start','quick_0bb37b8b.Start','cached','5de042c67a1cb77faad3af1032cdf7cbbe545897385f2c7fc46ac41b1cb9ab23','/srv/runs/artifacts/quick/Start/5de042c67a1c-e0b2c686','{"number": 2}',NULL,'2026-11-25 07:16:50.078420','2026-11-25 07:16:50.091686',0.0);
INSERT INTO "executions" VALUES('7d00f060b9df4c5a83bec537fb51dfcf','second','quick','Left','quick_0bb37b8b.Left','cached','ac11e432e792d198482bffe52ade1e6e477507c6564d46170208a830dab3be6e','/srv/runs/artifacts/quick/Left/ac11e432e792-824f7272','{}',NULL,'2026-11-25 07:16:50.126031','2026-11-25 07:16:50.132758',0.0);
INSERT INTO "executions" VALUES('2468b40c35354ba18f940b4776c16cd2','second','quick','Right','quick_0bb37b8b.Right','cached','3f43838081d20e829ee4b3e9f07fad161e00322e2d49c182f29aee1b38e1c7f5','/srv/runs/artifacts/quick/Right/3f43838081d2-7637b0e4','{}',NULL,'2026-11-25 07:16:50.162621','2026-11-25 07:16:50.173662',0.0);
INSERT INTO "executions" VALUES('a6fbf2f6cf5e400b9b6e5c1d26a71bc9','second','quick','Join','quick_0bb37b8b.Join','cached','910d50d12e35697efc7b7507a41b0fdeb477d4977ac38f34b69dbc9f22481690','/srv/runs/artifacts/quick/Join/910d50d12e35-a56ff943','{"joined": 603}',NULL,'2026-11-25 07:16:50.216160','2026-11-25 07:16:50.218338',0.0);
INSERT INTO "executions" VALUES('98776edb541d426dbf3b08eaee1a30c4','third','quick','Start','quick_0bb37b8b.Start','ran','bb319685c77225a5e51b156b7c6cf52174fdb9950bc16212d1c375ddff95375e','/srv/runs/artifacts/quick/Start/bb319685c772-fa3e5307','{"number": 7}',NULL,'2026-11-25 07:16:55.197265','2026-11-25 07:16:55.302953',1.05705714000578154809e-01);
INSERT INTO "executions" VALUES('c679e7d28c6f41e9b0ac7ab3955fa6db','third','quick','Left','quick_0bb37b8b.Left','failed',NULL,NULL,'{}','row 3 is upside down; turn it','2026-11-25 07:16:55.442268','2026-11-25 07:16:55.516903',7.46405629997752839699e-02);
INSERT INTO "executions" VALUES('2e483a5d9f13486fabe1244931766997','third','quick','Right','quick_0bb37b8b.Right','ran','2c234d8834893182b5cba5ed0f8bbcc5144802811b711c713cf2cca0a677a296','/srv/runs/artifacts/quick/Right/2c234d883489-f613968c','{}',NULL,'2026-11-25 07:16:55.417983','2026-11-25 07:16:55.529792',1.11829247000059694983e-01);
INSERT INTO "executions" VALUES('e910e97cc8d04835912da5b3a4ec0af3','third','quick','Join','quick_0bb37b8b.Join','skipped',NULL,NULL,'{}','not run, because Left failed','2026-11-25 07:16:55.608581','2026-11-25 07:16:55.639134',3.05627159996220143511e-02);
CREATE TABLE file_digests (
	path VARCHAR(1000) NOT NULL, 
	size BIGINT NOT NULL, 
	mtime_ns BIGINT NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	PRIMARY KEY (path)
);
INSERT INTO "file_digests" VALUES('/srv/trips.csv',17,1764000000000000000,'abababababababababababababababababababababababababababababababab');
CREATE TABLE runs (
	id VARCHAR(100) NOT NULL, 
	pipeline VARCHAR(200) NOT NULL, 
	recipe TEXT NOT NULL, 
	root TEXT NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	settings JSON NOT NULL, 
	started DATETIME NOT NULL, 
	finished DATETIME, 
	seconds FLOAT, 
	PRIMARY KEY (id)
);
INSERT INTO "runs" VALUES('first','quick','quick.py','/srv/runs','succeeded','{}','2026-11-25 07:16:43.691518','2026-11-25 07:16:47.261475',3.5696815899991634069e+00);
INSERT INTO "runs" VALUES('second','quick','quick.py','/srv/runs','succeeded','{}','2026-11-25 07:16:50.038344','2026-11-25 07:16:50.251953',2.1340215599957446102e-01);
INSERT INTO "runs" VALUES('third','quick','quick.py','/srv/runs','failed','{"Left.fail": "true", "Start.number": "7"}','2026-11-25 07:16:52.445940','2026-11-25 07:16:55.678651',3.23249597399990307167e+00);
CREATE INDEX ix_executions_fingerprint ON executions (fingerprint);
CREATE INDEX ix_events_artifact_id ON events (artifact_id);
COMMIT;
