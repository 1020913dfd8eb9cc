// Threads that stay: they spin for a moment after a job, then sleep until the next.
//
// A job is `count` independent pieces. Each thread has a stretch of them to itself and takes them in order, so that what
// it reads from memory is one stream; whoever is through with its own goes on with another's. So a thread that the system
// takes away delays a job by one piece at most, and one that has not come back by the time the pieces are gone is not
// waited for at all.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace quinze {

class ThreadPool {
public:
    // threads counts the caller, which works too.
    explicit ThreadPool(int threads) : size_(threads < 1 ? 1 : threads), stretches_(new Stretch[size_]) {
        for (int i = 1; i < size_; i++) workers_.emplace_back([this, i] { serve(i); });
    }
    ~ThreadPool() {
        stop_.store(true);
        epoch_.fetch_add(1);
        epoch_.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int size() const { return size_; }

    // f(piece, thread) for every piece in [0, count); returns when all are done. One caller at a time; f must not throw.
    template <class F>
    void run(int64_t count, F&& f) {
        if (size_ == 1 || count <= 1) {
            for (int64_t i = 0; i < count; i++) f(i, 0);
            return;
        }
        call_ = [](void* context, int64_t i, int thread) { (*static_cast<std::remove_reference_t<F>*>(context))(i, thread); };
        context_ = const_cast<void*>(static_cast<const void*>(&f));
        for (int i = 0; i < size_; i++) {
            stretches_[i].next.store(count * i / size_, std::memory_order_relaxed);
            stretches_[i].end = count * (i + 1) / size_;
        }
        gate_.store(kOpen, std::memory_order_release);
        epoch_.fetch_add(1);
        if (sleepers_.load() > 0) epoch_.notify_all();

        work(0);
        gate_.fetch_and(~kOpen);  // whoever has not come by now need not come
        for (int spins = 0; gate_.load(std::memory_order_acquire) != 0; spins++) {
            if (spins < kSpins) pause();
            else std::this_thread::yield();
        }
    }

private:
    static constexpr uint32_t kOpen = 1u << 16;  // below it: how many workers are inside the job
    static constexpr int kSpins = 4000;          // about 50 to 100 microseconds

    static void pause() {
#if defined(__x86_64__)
        _mm_pause();
#endif
    }

    struct alignas(64) Stretch {
        std::atomic<int64_t> next{0};
        int64_t end = 0;
    };

    void work(int thread) {
        for (int k = 0; k < size_; k++) {
            Stretch& s = stretches_[(thread + k) % size_];
            while (s.next.load(std::memory_order_relaxed) < s.end) {
                const int64_t i = s.next.fetch_add(1, std::memory_order_relaxed);
                if (i < s.end) call_(context_, i, thread);
            }
        }
    }

    void serve(int thread) {
        for (uint32_t seen = 0;;) {
            for (int spins = 0; spins < kSpins && epoch_.load(std::memory_order_acquire) == seen; spins++) pause();
            if (epoch_.load() == seen) {
                sleepers_.fetch_add(1);
                epoch_.wait(seen);
                sleepers_.fetch_sub(1);
            }
            seen = epoch_.load(std::memory_order_acquire);
            if (stop_.load()) return;
            for (uint32_t gate = gate_.load(std::memory_order_acquire); gate & kOpen;) {
                if (!gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) continue;
                work(thread);
                gate_.fetch_sub(1, std::memory_order_release);
                break;
            }
        }
    }

    const int size_;
    void (*call_)(void*, int64_t, int) = nullptr;
    void* context_ = nullptr;
    const std::unique_ptr<Stretch[]> stretches_;
    alignas(64) std::atomic<uint32_t> gate_{0};
    alignas(64) std::atomic<uint32_t> epoch_{0};
    std::atomic<int> sleepers_{0};
    std::atomic<bool> stop_{false};
    std::vector<std::thread> workers_;
};

}  // namespace quinze
