// What several pages need to know of the service: its models, its formats, its state. Asked once, asked again on demand.

import { api, asApiError, type ApiError, type KnowledgeBase, type ModelInfo, type ServiceStatus } from './api'

class ServiceView {
  status = $state.raw<ServiceStatus | null>(null)
  models = $state.raw<ModelInfo[] | null>(null)
  knowledgeBases = $state.raw<KnowledgeBase[] | null>(null)
  formats = $state.raw<Record<string, string>>({})
  error = $state.raw<ApiError | null>(null)

  chatModels = $derived((this.models ?? []).filter((model) => !model.error))

  async refresh() {
    await Promise.all([this.refreshModels(), this.refreshKnowledgeBases(), this.refreshStatus()])
    if (!Object.keys(this.formats).length) this.formats = await api.formats().catch(() => ({}))
  }

  async refreshStatus() {
    await this.taking(api.status(), (status) => (this.status = status))
  }

  async refreshModels() {
    await this.taking(api.models(), (models) => (this.models = models))
  }

  async refreshKnowledgeBases() {
    await this.taking(api.knowledgeBases(), (bases) => (this.knowledgeBases = bases))
  }

  private async taking<T>(asking: Promise<T>, take: (found: T) => void) {
    try {
      take(await asking)
      this.error = null
    } catch (error) {
      this.error = asApiError(error)
    }
  }
}

export const service = new ServiceView()
