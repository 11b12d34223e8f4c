/**
 * What the servers that speak OpenAI's API do differently, as data.
 *
 * **Details**
 *
 * A dialect says where a server listens, how it wants the key, and which of the fields that differ it takes. Each
 * names its source. A server that is not here is described by another one's dialect with changed fields:
 * `{ ...Dialect.vllm, name: "gpu-1", baseUrl: "http://gpu-1:8000/v1" }`.
 *
 * **Gotchas**
 *
 * Servers change, and what a model can do is the model's affair: an `embeddings: true` says that the server has the
 * endpoint. The servers were not asked; their documentation and their users' reports were read, in November 2026.
 *
 * @example
 * ```ts
 * import { Dialect, OpenAi } from "@llm/openai"
 * import { Redacted } from "effect"
 *
 * const options = Dialect.clientOptions(Dialect.mistral, { apiKey: Redacted.make("key") })
 * export const Mistral = OpenAi.layer(options)
 * if (options.streamUsage !== false) throw new Error("Mistral rejects stream_options")
 * ```
 */
import * as Redacted from "effect/Redacted"
import type * as OpenAiClient from "./OpenAiClient.ts"

/** One server's way of speaking the API. */
export interface Dialect {
  /** How the provider is called in errors, circuits, metrics and the registry. */
  readonly name: string
  /** Where it listens unless told otherwise. */
  readonly baseUrl: string
  /** Added to every URL. */
  readonly query?: Readonly<Record<string, string>> | undefined
  /** How the key is sent. */
  readonly authorization: "bearer" | "api-key"
  /** The environment variable that its users keep the key in. */
  readonly keyVariable: string
  /** `false` for servers that run without a key unless they are told one. */
  readonly keyRequired: boolean
  /** The role of the message that leads: what does not know `developer` rejects it. */
  readonly systemRole: "developer" | "system"
  /** The field that bounds a reply, in tokens. */
  readonly maxTokensField: "max_completion_tokens" | "max_tokens"
  /** Whether `stream_options` may be sent, by which a stream tells its usage. */
  readonly streamUsage: boolean
  /** Whether it has `/embeddings`. */
  readonly embeddings: boolean
  /** Where this is written. */
  readonly source: string
}

/** OpenAI. Reasoning models reject `max_tokens`. */
export const openai: Dialect = {
  name: "openai",
  baseUrl: "https://api.openai.com/v1",
  authorization: "bearer",
  keyVariable: "OPENAI_API_KEY",
  keyRequired: true,
  systemRole: "developer",
  maxTokensField: "max_completion_tokens",
  streamUsage: true,
  embeddings: true,
  source: "https://platform.openai.com/docs/api-reference/chat/create"
}

/** Where an Azure resource is, and which of its two APIs is meant. */
export interface AzureOptions {
  /** Of the resource, such as `https://my-resource.openai.azure.com`. */
  readonly endpoint: string
  /** A dated API: its version, such as `2024-10-21`, and the deployment, which is a part of its path. */
  readonly dated?: { readonly apiVersion: string; readonly deployment: string } | undefined
}

/** The first dated version that takes `stream_options` and `max_completion_tokens`. */
const modernAzure = "2024-09-01"

/**
 * Azure. Its current API (`/openai/v1`) has neither date nor deployment in the URL: the model of a request is the
 * deployment. Models that are not OpenAI's reject the role `developer`; OpenAI's take `system` for it.
 */
export const azure = ({ dated, endpoint }: AzureOptions): Dialect => {
  const root = `${endpoint.replace(/\/+$/u, "")}/openai`
  const modern = dated === undefined || dated.apiVersion >= modernAzure
  return {
    name: "azure",
    ...(dated === undefined
      ? { baseUrl: `${root}/v1` }
      : {
          baseUrl: `${root}/deployments/${encodeURIComponent(dated.deployment)}`,
          query: { "api-version": dated.apiVersion }
        }),
    authorization: "api-key",
    keyVariable: "AZURE_OPENAI_API_KEY",
    keyRequired: true,
    systemRole: "system",
    maxTokensField: modern ? "max_completion_tokens" : "max_tokens",
    streamUsage: modern,
    embeddings: true,
    source:
      "https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle; Azure/azure-sdk-for-java#40998; CherryHQ/cherry-studio#12325"
  }
}

/** Ollama on this machine, which ignores the key; the variable is that of its cloud, `https://ollama.com/v1`. */
export const ollama: Dialect = {
  name: "ollama",
  baseUrl: "http://localhost:11434/v1",
  authorization: "bearer",
  keyVariable: "OLLAMA_API_KEY",
  keyRequired: false,
  systemRole: "system",
  maxTokensField: "max_tokens",
  streamUsage: true,
  embeddings: true,
  source: "https://docs.ollama.com/api/openai-compatibility"
}

/** vLLM. Embeddings need a model that is served for them. */
export const vllm: Dialect = {
  name: "vllm",
  baseUrl: "http://localhost:8000/v1",
  authorization: "bearer",
  keyVariable: "VLLM_API_KEY",
  keyRequired: false,
  systemRole: "system",
  maxTokensField: "max_tokens",
  streamUsage: true,
  embeddings: true,
  source: "https://docs.vllm.ai/en/latest/serving/openai_compatible_server"
}

/** llama.cpp's `llama-server`. Embeddings need `--embeddings`. */
export const llamaCpp: Dialect = {
  name: "llama.cpp",
  baseUrl: "http://localhost:8080/v1",
  authorization: "bearer",
  keyVariable: "LLAMA_API_KEY",
  keyRequired: false,
  systemRole: "system",
  maxTokensField: "max_tokens",
  streamUsage: true,
  embeddings: true,
  source: "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md"
}

/** Groq. Rejects `logprobs`, `logit_bias`, names of messages, and more than one choice. */
export const groq: Dialect = {
  name: "groq",
  baseUrl: "https://api.groq.com/openai/v1",
  authorization: "bearer",
  keyVariable: "GROQ_API_KEY",
  keyRequired: true,
  systemRole: "system",
  maxTokensField: "max_completion_tokens",
  streamUsage: true,
  embeddings: false,
  source: "https://console.groq.com/docs/openai; groq/groq-python#175"
}

/** Mistral rejects fields that it does not know with 422; a stream's last chunk has the usage unasked. */
export const mistral: Dialect = {
  name: "mistral",
  baseUrl: "https://api.mistral.ai/v1",
  authorization: "bearer",
  keyVariable: "MISTRAL_API_KEY",
  keyRequired: true,
  systemRole: "system",
  maxTokensField: "max_tokens",
  streamUsage: false,
  embeddings: true,
  source:
    "https://docs.mistral.ai/api; openai/openai-agents-python#442; editor-code-assistant/eca#231; dnakov/anon-kode#53"
}

/** DeepSeek. */
export const deepSeek: Dialect = {
  name: "deepseek",
  baseUrl: "https://api.deepseek.com",
  authorization: "bearer",
  keyVariable: "DEEPSEEK_API_KEY",
  keyRequired: true,
  systemRole: "system",
  maxTokensField: "max_tokens",
  streamUsage: true,
  embeddings: false,
  source: "https://api-docs.deepseek.com; earendil-works/pi#1048"
}

/** Together. */
export const together: Dialect = {
  name: "together",
  baseUrl: "https://api.together.xyz/v1",
  authorization: "bearer",
  keyVariable: "TOGETHER_API_KEY",
  keyRequired: true,
  systemRole: "system",
  maxTokensField: "max_tokens",
  streamUsage: true,
  embeddings: true,
  source: "https://docs.together.ai/docs/openai-api-compatibility"
}

/** OpenRouter, which passes roles on to servers that do not know `developer`. */
export const openRouter: Dialect = {
  name: "openrouter",
  baseUrl: "https://openrouter.ai/api/v1",
  authorization: "bearer",
  keyVariable: "OPENROUTER_API_KEY",
  keyRequired: true,
  systemRole: "system",
  maxTokensField: "max_tokens",
  streamUsage: true,
  embeddings: true,
  source: "https://openrouter.ai/docs/api_reference/embeddings; earendil-works/pi#5384"
}

/** LM Studio. Older versions ignore the wish for a stream's usage. */
export const lmStudio: Dialect = {
  name: "lmstudio",
  baseUrl: "http://localhost:1234/v1",
  authorization: "bearer",
  keyVariable: "LM_STUDIO_API_KEY",
  keyRequired: false,
  systemRole: "system",
  maxTokensField: "max_tokens",
  streamUsage: true,
  embeddings: true,
  source: "https://lmstudio.ai/docs/api/openai-api; lmstudio-ai/lmstudio-bug-tracker#713"
}

/** All that need no address of one's own; `azure` is made with it. */
export const all: ReadonlyArray<Dialect> = [
  openai,
  ollama,
  vllm,
  llamaCpp,
  groq,
  mistral,
  deepSeek,
  together,
  openRouter,
  lmStudio
]

/** What is the user's own. */
export interface Address {
  /** May be left out where the dialect requires none. */
  readonly apiKey?: Redacted.Redacted | undefined
  /** In place of the dialect's. */
  readonly baseUrl?: string | undefined
}

/** The SDK sends a key always; servers without one ignore it. */
const noKey = Redacted.make("none")

/** The options of a client for one server. */
export const clientOptions = (dialect: Dialect, address: Address = {}): OpenAiClient.Options => ({
  apiKey: address.apiKey ?? noKey,
  baseUrl: address.baseUrl ?? dialect.baseUrl,
  provider: dialect.name,
  query: dialect.query,
  authorization: dialect.authorization,
  streamUsage: dialect.streamUsage
})
