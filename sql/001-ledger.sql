-- The ledger: which occurrences were run, how far each run came, and what it left over.
-- roundsman --install runs this in one transaction, with search_path set to the ledger's schema.

CREATE TABLE job (
    id              integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text        NOT NULL UNIQUE,
    kind            text        NOT NULL,
    schedule        text        NOT NULL,
    timezone        text        NOT NULL,
    enabled         boolean     NOT NULL DEFAULT true,
    first_seen      timestamptz NOT NULL DEFAULT now(),
    settled_through timestamptz NOT NULL DEFAULT now(),
    pruned_from     timestamptz,
    pruned_through  timestamptz
);
COMMENT ON TABLE job IS 'a configured job';
COMMENT ON COLUMN job.settled_through IS 'every occurrence up to here was run or skipped, or was never owed; it only grows';
COMMENT ON COLUMN job.pruned_from IS 'the first due of the runs that retention has deleted';
COMMENT ON COLUMN job.pruned_through IS 'the last due of the runs that retention has deleted';

CREATE TABLE run (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id       integer     NOT NULL REFERENCES job,
    due          timestamptz,
    trigger      text        NOT NULL CHECK (trigger IN ('schedule', 'catch_up', 'manual')),
    state        text        NOT NULL CHECK (state IN ('running', 'done', 'partial', 'failed', 'interrupted', 'abandoned')),
    attempt      integer     NOT NULL DEFAULT 0,
    params       jsonb       NOT NULL,
    rows_done    bigint      NOT NULL DEFAULT 0,
    rows_skipped bigint      NOT NULL DEFAULT 0,
    started_at   timestamptz NOT NULL,
    finished_at  timestamptz,
    reported_at  timestamptz,
    error        text,
    UNIQUE (job_id, due),
    CHECK ((due IS NULL) = (trigger = 'manual'))
);
COMMENT ON TABLE run IS 'one occurrence, or one manual run (due is NULL)';
COMMENT ON COLUMN run.attempt IS 'grows each time a process takes the run up; what an earlier one still sends is refused by it';
COMMENT ON COLUMN run.params IS 'settings, names and key type, frozen when the run started';
CREATE INDEX run_unfinished ON run (job_id) WHERE state IN ('running', 'failed', 'interrupted', 'partial');
CREATE INDEX run_finished_at ON run (finished_at);

-- One hot row per lane: it is updated in every batch, and pruning needs room on its page.
CREATE TABLE lane (
    run_id       bigint  NOT NULL REFERENCES run ON DELETE CASCADE,
    lane         integer NOT NULL,
    attempt      integer NOT NULL DEFAULT 0,
    range_from   text,
    range_to     text    NOT NULL,
    cursor       text,
    rows_done    bigint  NOT NULL DEFAULT 0,
    rows_skipped bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, lane)
) WITH (fillfactor = 10);
COMMENT ON TABLE lane IS 'a key range of a run: after range_from (NULL: from the first key), up to and with range_to';
COMMENT ON COLUMN lane.cursor IS 'the last key that was done; it moves in the transaction of the rows it speaks for';

CREATE TABLE leftover (
    run_id       bigint      NOT NULL REFERENCES run ON DELETE CASCADE,
    key          text        NOT NULL,
    lane         integer     NOT NULL,
    reason       text        NOT NULL CHECK (reason IN ('locked', 'failed')),
    error        text,
    sqlstate     text,
    attempts     integer     NOT NULL DEFAULT 1,
    next_attempt timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, key)
);
COMMENT ON TABLE leftover IS 'a row that a run could not do yet; deleting it is part of the transaction that does the row';
CREATE INDEX leftover_key ON leftover (key);

CREATE TABLE skip (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id      integer     NOT NULL REFERENCES job,
    due_from    timestamptz NOT NULL,
    due_through timestamptz NOT NULL,
    occurrences bigint      NOT NULL,
    reason      text        NOT NULL,
    skipped_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE skip IS 'occurrences that were owed after downtime and are not made up for, as catch_up says';

-- Makes a statement fail with a reason: how one order is left over, and not half-restored.
CREATE FUNCTION refuse(state text, reason text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = state, MESSAGE = reason;
END $$;
