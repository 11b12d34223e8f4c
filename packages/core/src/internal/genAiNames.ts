/**
 * Names that the conventions for generative AI fix, for what we call otherwise.
 */

/** Ours → theirs; a provider that is not among them keeps its name, as the conventions allow. */
const providers: ReadonlyMap<string, string> = new Map([
  ["azure", "azure.ai.openai"],
  ["mistral", "mistral_ai"],
  ["xai", "x_ai"],
  ["moonshot", "moonshot_ai"],
  ["gemini", "gcp.gemini"],
  ["bedrock", "aws.bedrock"]
])

/** `gen_ai.provider.name`. */
export const provider = (name: string): string => providers.get(name) ?? name

/** Operations that the conventions have a name for; to look at a stored response is no chat. */
const operations: ReadonlyMap<string, string> = new Map([
  ["chat.create", "chat"],
  ["chat.stream", "chat"],
  ["responses.create", "chat"],
  ["responses.stream", "chat"],
  ["responses.resume", "chat"],
  ["completions.create", "text_completion"],
  ["embeddings.create", "embeddings"],
  ["vectorStores.search", "retrieval"]
])

/** `gen_ai.operation.name`. */
export const operation = (name: string): string => operations.get(name) ?? name
