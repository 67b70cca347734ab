-- Views the list calls read: one row per template, or ISO, and copy

CREATE VIEW template_view AS
SELECT t.template_id, t.account_id, t.name, t.url, t.format, t.scope, t.public, t.state,
       t.created_at, t.size_bytes, t.virtual_size_bytes, t.checksum, t.error, t.job_id,
       r.ref_id, r.store_id, s.name AS store_name, s.provider AS store_provider,
       s.scope AS store_scope, r.zone_id, z.name AS zone_name, r.state AS copy_state,
       r.digest_root, r.physical_size_bytes, r.epoch, r.updated_at AS copied_at
FROM template t
LEFT JOIN template_store_ref r ON r.template_id = t.template_id AND r.state <> 'Destroyed'
LEFT JOIN image_store s ON s.store_id = r.store_id
LEFT JOIN zone z ON z.zone_id = r.zone_id
WHERE t.format <> 'iso' AND t.state <> 'deleted';

CREATE VIEW iso_view AS
SELECT t.template_id AS iso_id, t.account_id, t.name, t.url, t.scope, t.public, t.state,
       t.created_at, t.size_bytes, t.checksum, t.error, t.job_id,
       r.ref_id, r.store_id, s.name AS store_name, s.provider AS store_provider,
       s.scope AS store_scope, r.zone_id, z.name AS zone_name, r.state AS copy_state,
       r.digest_root, r.physical_size_bytes, r.epoch, r.updated_at AS copied_at
FROM template t
LEFT JOIN template_store_ref r ON r.template_id = t.template_id AND r.state <> 'Destroyed'
LEFT JOIN image_store s ON s.store_id = r.store_id
LEFT JOIN zone z ON z.zone_id = r.zone_id
WHERE t.format = 'iso' AND t.state <> 'deleted';
