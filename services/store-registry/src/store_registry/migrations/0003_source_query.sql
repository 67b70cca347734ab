-- The query of a template's source URL, AES-256-GCM sealed, while its job runs

ALTER TABLE template ADD COLUMN source_query bytea;
