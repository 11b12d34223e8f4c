/**
 * The operations of OpenAI's published description (August 2026, version 2.3.0): what the API has, whether the simulator
 * serves it or not. Generated: one line per path, its methods first.
 */
const table = `
GET POST /assistants
DELETE GET POST /assistants/{assistant_id}
POST /audio/speech
POST /audio/transcriptions
POST /audio/translations
GET POST /audio/voice_consents
DELETE GET POST /audio/voice_consents/{consent_id}
POST /audio/voices
GET POST /batches
GET /batches/{batch_id}
POST /batches/{batch_id}/cancel
GET POST /chat/completions
DELETE GET POST /chat/completions/{completion_id}
GET /chat/completions/{completion_id}/messages
POST /chatkit/sessions
POST /chatkit/sessions/{session_id}/cancel
GET /chatkit/threads
DELETE GET /chatkit/threads/{thread_id}
GET /chatkit/threads/{thread_id}/items
POST /completions
GET POST /containers
DELETE GET /containers/{container_id}
GET POST /containers/{container_id}/files
DELETE GET /containers/{container_id}/files/{file_id}
GET /containers/{container_id}/files/{file_id}/content
POST /content_provenance_checks
POST /conversations
DELETE GET POST /conversations/{conversation_id}
GET POST /conversations/{conversation_id}/items
DELETE GET /conversations/{conversation_id}/items/{item_id}
POST /embeddings
GET POST /evals
DELETE GET POST /evals/{eval_id}
GET POST /evals/{eval_id}/runs
DELETE GET POST /evals/{eval_id}/runs/{run_id}
GET /evals/{eval_id}/runs/{run_id}/output_items
GET /evals/{eval_id}/runs/{run_id}/output_items/{output_item_id}
GET POST /files
DELETE GET /files/{file_id}
GET /files/{file_id}/content
POST /fine_tuning/alpha/graders/run
POST /fine_tuning/alpha/graders/validate
GET POST /fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions
DELETE /fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions/{permission_id}
GET POST /fine_tuning/jobs
GET /fine_tuning/jobs/{fine_tuning_job_id}
POST /fine_tuning/jobs/{fine_tuning_job_id}/cancel
GET /fine_tuning/jobs/{fine_tuning_job_id}/checkpoints
GET /fine_tuning/jobs/{fine_tuning_job_id}/events
POST /fine_tuning/jobs/{fine_tuning_job_id}/pause
POST /fine_tuning/jobs/{fine_tuning_job_id}/resume
POST /images/edits
POST /images/generations
POST /images/variations
GET /models
DELETE GET /models/{model}
POST /moderations
GET POST /organization/admin_api_keys
DELETE GET /organization/admin_api_keys/{key_id}
GET /organization/audit_logs
GET POST /organization/certificates
POST /organization/certificates/activate
POST /organization/certificates/deactivate
DELETE GET POST /organization/certificates/{certificate_id}
GET /organization/costs
GET POST /organization/data_retention
GET POST /organization/groups
DELETE GET POST /organization/groups/{group_id}
GET POST /organization/groups/{group_id}/roles
DELETE GET /organization/groups/{group_id}/roles/{role_id}
GET POST /organization/groups/{group_id}/users
DELETE GET /organization/groups/{group_id}/users/{user_id}
GET POST /organization/invites
DELETE GET /organization/invites/{invite_id}
GET POST /organization/projects
GET POST /organization/projects/{project_id}
GET /organization/projects/{project_id}/api_keys
DELETE GET /organization/projects/{project_id}/api_keys/{api_key_id}
POST /organization/projects/{project_id}/archive
GET /organization/projects/{project_id}/certificates
POST /organization/projects/{project_id}/certificates/activate
POST /organization/projects/{project_id}/certificates/deactivate
GET POST /organization/projects/{project_id}/data_retention
GET POST /organization/projects/{project_id}/groups
DELETE GET /organization/projects/{project_id}/groups/{group_id}
GET POST /organization/projects/{project_id}/hosted_tool_permissions
DELETE GET POST /organization/projects/{project_id}/model_permissions
GET /organization/projects/{project_id}/rate_limits
POST /organization/projects/{project_id}/rate_limits/{rate_limit_id}
GET POST /organization/projects/{project_id}/service_accounts
DELETE GET POST /organization/projects/{project_id}/service_accounts/{service_account_id}
POST /organization/projects/{project_id}/service_accounts/{service_account_id}/api_keys
GET POST /organization/projects/{project_id}/spend_alerts
DELETE GET POST /organization/projects/{project_id}/spend_alerts/{alert_id}
DELETE GET POST /organization/projects/{project_id}/spend_limit
GET POST /organization/projects/{project_id}/users
DELETE GET POST /organization/projects/{project_id}/users/{user_id}
GET POST /organization/roles
DELETE GET POST /organization/roles/{role_id}
GET POST /organization/spend_alerts
DELETE GET POST /organization/spend_alerts/{alert_id}
DELETE GET POST /organization/spend_limit
GET /organization/usage/audio_speeches
GET /organization/usage/audio_transcriptions
GET /organization/usage/code_interpreter_sessions
GET /organization/usage/completions
GET /organization/usage/embeddings
GET /organization/usage/file_search_calls
GET /organization/usage/images
GET /organization/usage/moderations
GET /organization/usage/vector_stores
GET /organization/usage/web_search_calls
GET /organization/users
DELETE GET POST /organization/users/{user_id}
GET POST /organization/users/{user_id}/roles
DELETE GET /organization/users/{user_id}/roles/{role_id}
GET POST /projects/{project_id}/groups/{group_id}/roles
DELETE GET /projects/{project_id}/groups/{group_id}/roles/{role_id}
GET POST /projects/{project_id}/roles
DELETE GET POST /projects/{project_id}/roles/{role_id}
GET POST /projects/{project_id}/users/{user_id}/roles
DELETE GET /projects/{project_id}/users/{user_id}/roles/{role_id}
POST /realtime/calls
POST /realtime/calls/{call_id}/accept
POST /realtime/calls/{call_id}/hangup
POST /realtime/calls/{call_id}/refer
POST /realtime/calls/{call_id}/reject
POST /realtime/client_secrets
POST /realtime/sessions
POST /realtime/transcription_sessions
POST /realtime/translations/client_secrets
POST /responses
POST /responses/compact
POST /responses/input_tokens
DELETE GET /responses/{response_id}
POST /responses/{response_id}/cancel
GET /responses/{response_id}/input_items
GET POST /skills
DELETE GET POST /skills/{skill_id}
GET /skills/{skill_id}/content
GET POST /skills/{skill_id}/versions
DELETE GET /skills/{skill_id}/versions/{version}
GET /skills/{skill_id}/versions/{version}/content
POST /threads
POST /threads/runs
DELETE GET POST /threads/{thread_id}
GET POST /threads/{thread_id}/messages
DELETE GET POST /threads/{thread_id}/messages/{message_id}
GET POST /threads/{thread_id}/runs
GET POST /threads/{thread_id}/runs/{run_id}
POST /threads/{thread_id}/runs/{run_id}/cancel
GET /threads/{thread_id}/runs/{run_id}/steps
GET /threads/{thread_id}/runs/{run_id}/steps/{step_id}
POST /threads/{thread_id}/runs/{run_id}/submit_tool_outputs
POST /uploads
POST /uploads/{upload_id}/cancel
POST /uploads/{upload_id}/complete
POST /uploads/{upload_id}/parts
GET POST /vector_stores
DELETE GET POST /vector_stores/{vector_store_id}
POST /vector_stores/{vector_store_id}/file_batches
GET /vector_stores/{vector_store_id}/file_batches/{batch_id}
POST /vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel
GET /vector_stores/{vector_store_id}/file_batches/{batch_id}/files
GET POST /vector_stores/{vector_store_id}/files
DELETE GET POST /vector_stores/{vector_store_id}/files/{file_id}
GET /vector_stores/{vector_store_id}/files/{file_id}/content
POST /vector_stores/{vector_store_id}/search
GET POST /videos
POST /videos/characters
GET /videos/characters/{character_id}
POST /videos/edits
POST /videos/extensions
DELETE GET /videos/{video_id}
GET /videos/{video_id}/content
POST /videos/{video_id}/remix
`

interface Operation {
  readonly pattern: RegExp
  readonly path: string
  readonly methods: ReadonlySet<string>
}

/** By the first segment of the path. */
const operations = new Map<string, Array<Operation>>()

for (const line of table.trim().split("\n")) {
  const words = line.split(" ")
  const path = words.at(-1) ?? ""
  const resource = path.split("/")[1] ?? ""
  const known = operations.get(resource) ?? []
  known.push({
    pattern: new RegExp(`^/v1${path.replaceAll(/\{\w+\}/g, "[^/]+")}$`),
    path,
    methods: new Set(words.slice(0, -1))
  })
  operations.set(resource, known)
}

/** The path as the description writes it, when the API has the operation. */
export const find = (method: string, path: string): string | undefined =>
  operations
    .get(path.split("/", 3)[2] ?? "")
    ?.find(({ methods, pattern }) => methods.has(method) && pattern.test(path))?.path
