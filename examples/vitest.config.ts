import { defineConfig } from "vitest/config"

export default defineConfig({ test: { globalSetup: "./upstream.ts", testTimeout: 60_000 } })
