import { assert, describe, it } from "@effect/vitest"
import * as openai from "@llm/openai"

/** A name that comes or goes here is a change for users: it belongs in a changeset. */
describe("the public surface", () => {
  it("is these names", () => {
    assert.deepStrictEqual(
      Object.fromEntries(
        Object.entries(openai).map(([name, module]) => [name, Object.keys(module).toSorted()])
      ),
      {
        Audio: [
          "DiarizedTranscription",
          "Transcription",
          "VerboseTranscription",
          "make",
          "speak",
          "speakStream",
          "transcribe",
          "transcribeStream",
          "translate",
          "usageOf"
        ],
        Batches: ["Batch", "Problem", "make"],
        ChatCompletions: ["ChatCompletion", "create", "logprobsOf", "stream", "textOf", "usageOf"],
        Conversations: ["Conversation", "Deleted", "Item", "make"],
        CreationJournal: ["CreationJournal", "Entry", "JournalFailed", "layerMemory", "none"],
        Dialect: [
          "all",
          "azure",
          "clientOptions",
          "deepSeek",
          "groq",
          "llamaCpp",
          "lmStudio",
          "mistral",
          "ollama",
          "openRouter",
          "openai",
          "together",
          "vllm"
        ],
        EmbeddingBatcher: ["EmbeddingBatcher", "layer", "layerNone", "layerSemanticCache"],
        EmbeddingRelay: ["make"],
        Embeddings: ["create"],
        Files: [
          "Deleted",
          "File",
          "content",
          "contentStream",
          "create",
          "createMany",
          "list",
          "make",
          "remove",
          "retrieve"
        ],
        Images: [
          "Image",
          "Images",
          "bytesOf",
          "edit",
          "editStream",
          "generate",
          "generateStream",
          "make",
          "usageOf",
          "vary"
        ],
        Models: [
          "DefaultModels",
          "Model",
          "Name",
          "defaults",
          "defaultsConfig",
          "deprecationOf",
          "layerDefaults",
          "layerDefaultsConfig",
          "list",
          "retrieve",
          "warning"
        ],
        Moderations: ["Moderation", "Moderations", "categories", "create", "flaggedOf"],
        OpenAi: ["OpenAi", "layer", "layerClient", "layerConfig", "layerDeployments"],
        OpenAiClient: [
          "OpenAiClient",
          "callOf",
          "config",
          "isErrorBody",
          "layer",
          "layerConfig",
          "layerDeployments",
          "make",
          "makeDeployments",
          "parseJson",
          "readBytes"
        ],
        Passthrough: ["send"],
        Placement: ["Placement", "layerMemory", "makeMemory"],
        Provider: ["EmbeddingsUnsupported", "Provider", "connect", "connectConfig", "layer", "make"],
        Providers: ["ProviderUnknown", "Providers", "include", "layer", "make"],
        Realtime: ["connect"],
        Responses: [
          "Deleted",
          "FunctionCall",
          "InputItem",
          "Item",
          "Response",
          "citationOf",
          "citationsOf",
          "functionCallsOf",
          "isPending",
          "make",
          "reasoningSummaryOf",
          "refusalOf",
          "textOf",
          "usageOf"
        ],
        StrictSchema: ["SchemaNotStrict", "fromJsonSchema", "fromSchema"],
        StructuredOutput: ["generate", "stream"],
        ToolLoop: ["ToolLoopExceeded", "run", "runResponses", "stream", "streamResponses", "whenCalled"],
        Tools: ["chatFields", "define", "defineJson", "make", "raise", "responsesFields", "tellModel"],
        Transport: ["Transport", "TransportFailure"],
        Uploads: ["Part", "Upload", "addPart", "cancel", "complete", "create", "file", "make"],
        VectorStoreBuilder: ["make"],
        VectorStores: [
          "FileBatch",
          "FileCounts",
          "SearchPage",
          "SearchResult",
          "VectorStore",
          "VectorStoreFile",
          "make"
        ],
        VectorStoreSweep: ["sweep"],
        Webhooks: ["Reason", "WebhookRefused", "WebhookUnreadable", "secret", "unwrap", "verify"]
      }
    )
  })

  it("has no way to the internals", async () => {
    for (const module of ["sse", "chatStream", "pool"]) {
      const path = `@llm/openai/internal/${module}`
      const outcome = await import(path).then(
        () => "imported",
        () => "refused"
      )
      assert.strictEqual(outcome, "refused")
    }
  })
})
