// Turns, timers, mail, hooks, stopping and abandoning.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "native/io/test_loop.h"

namespace curve::io {
namespace {

struct NamedTimer : Timer {
  NamedTimer(std::vector<int>* order, int name) : order(order), name(name) {
    fire = [](Timer* timer) {
      auto* self = static_cast<NamedTimer*>(timer);
      self->order->push_back(self->name);
    };
  }
  std::vector<int>* order;
  int name;
};

TEST(Loop, TimersFireInOrderOfDeadline) {
  TestLoop loop;
  std::vector<int> order;
  NamedTimer a(&order, 1), b(&order, 2), c(&order, 3), d(&order, 4);
  const uint64_t now = loop->now_ns();
  loop->arm(&c, now + 3'000'000);
  loop->arm(&a, now + 30'000'000);
  loop->arm(&b, now + 2'000'000);
  loop->arm(&d, now + 2'500'000);
  loop->arm(&a, now + 1'000'000);  // moved
  loop->disarm(&d);
  EXPECT_TRUE(a.armed());
  EXPECT_FALSE(d.armed());
  loop.run_until([&] { return order.size() == 3; });
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_FALSE(a.armed());
  EXPECT_GE(loop->now_ns(), now + 3'000'000);
}

TEST(Loop, TurnsByHand) {
  TestLoop loop;
  std::vector<int> order;
  NamedTimer a(&order, 1);
  loop->arm(&a, loop->now_ns() + 3'000'000);
  EXPECT_TRUE(loop->turn(0));
  EXPECT_TRUE(order.empty());
  for (int turns = 0; order.empty() && turns < 100; ++turns) EXPECT_TRUE(loop->turn(1'000'000'000));
  EXPECT_EQ(order.size(), 1u);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(loop->turn(100'000));  // nothing will ever come
  struct Posted : Mail {
    bool ran = false;
  } mail;
  mail.run = [](Mail* m) { static_cast<Posted*>(m)->ran = true; };
  std::thread poster([&] { loop->post(&mail); });
  while (!mail.ran) EXPECT_TRUE(loop->turn(UINT64_MAX));
  poster.join();
  loop->abandon();
  EXPECT_FALSE(loop->turn(0));
}

TEST(Loop, ATimerThatRearmsItselfInThePastDoesNotHoldTheTurn) {
  TestLoop loop;
  struct Again : Timer {
    Loop* loop;
    int fired = 0;
  } timer;
  timer.loop = &*loop;
  timer.fire = [](Timer* t) {
    auto* self = static_cast<Again*>(t);
    ++self->fired;
    self->loop->arm(self, 0);
  };
  loop->arm(&timer, 0);
  int turns = 0;
  loop.run_until([&] { return ++turns == 5; });
  EXPECT_GE(timer.fired, 4);
  EXPECT_LE(timer.fired, 5);
  loop->disarm(&timer);
}

TEST(Loop, ATimerMayDisarmAnotherThatIsDue) {
  TestLoop loop;
  std::vector<int> order;
  NamedTimer second(&order, 2), third(&order, 3);
  struct First : Timer {
    Loop* loop;
    Timer* victim;
  } first;
  first.loop = &*loop;
  first.victim = &second;
  first.fire = [](Timer* t) {
    static_cast<First*>(t)->loop->disarm(static_cast<First*>(t)->victim);
  };
  const uint64_t now = loop->now_ns();
  loop->arm(&first, now + 1);
  loop->arm(&second, now + 2);
  loop->arm(&third, now + 3);
  loop.run_until([&] { return !order.empty(); });
  EXPECT_EQ(order, std::vector<int>{3});
}

TEST(Loop, HooksRunInOrderOncePerTurnAndMayRemoveEachOther) {
  auto loop = std::move(*make_loop());
  struct Hook : TurnHook {
    std::vector<int>* order;
    int name;
    Loop* loop;
    TurnHook* removes = nullptr;
  } a, b, c;
  std::vector<int> order;
  int name = 0;
  for (Hook* hook : {&a, &b, &c}) {
    hook->order = &order;
    hook->name = ++name;
    hook->loop = loop.get();
    hook->run = [](TurnHook* h) {
      auto* self = static_cast<Hook*>(h);
      self->order->push_back(self->name);
      if (self->removes) self->loop->remove_turn_hook(self->removes);
    };
    loop->add_turn_hook(hook);
  }
  loop->stop();
  loop->run();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  order.clear();
  a.removes = &b;
  c.removes = &c;
  loop->stop();
  loop->run();
  EXPECT_EQ(order, (std::vector<int>{1, 3}));
  order.clear();
  loop->stop();
  loop->run();
  EXPECT_EQ(order, (std::vector<int>{1}));
}

struct CountingMail : Mail {
  std::vector<int>* order = nullptr;
  int name = 0;
};

// Every mail arrives once, each thread's in its order, and a sleeping loop wakes.
TEST(Loop, MailFromManyThreads) {
  constexpr int kThreads = 4, kMails = 2000;
  TestLoop loop;
  std::vector<std::vector<int>> orders(kThreads);
  std::vector<std::vector<CountingMail>> mails(kThreads, std::vector<CountingMail>(kMails));
  int arrived = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    for (int i = 0; i < kMails; ++i) {
      mails[t][i].order = &orders[t];
      mails[t][i].name = i;
      mails[t][i].owner = &arrived;
      mails[t][i].run = [](Mail* mail) {
        auto* self = static_cast<CountingMail*>(mail);
        self->order->push_back(self->name);
        ++*static_cast<int*>(self->owner);
      };
    }
    threads.emplace_back([&, t] {
      for (int i = 0; i < kMails; ++i) {
        loop->post(&mails[t][i]);
        if (i % 100 == 0) std::this_thread::yield();
      }
    });
  }
  loop.run_until([&] { return arrived == kThreads * kMails; });
  for (auto& thread : threads) thread.join();
  for (const auto& order : orders) {
    ASSERT_EQ(order.size(), static_cast<size_t>(kMails));
    for (int i = 0; i < kMails; ++i) ASSERT_EQ(order[i], i);
  }
}

TEST(Loop, MailAndStopBeforeRun) {
  auto loop = std::move(*make_loop());
  struct Flag : Mail {
    bool ran = false;
  } flag;
  flag.run = [](Mail* mail) { static_cast<Flag*>(mail)->ran = true; };
  std::thread([&] {
    loop->post(&flag);
    loop->stop();
  }).join();
  loop->run();
  EXPECT_TRUE(flag.ran);
}

// Made here, run there, stopped from here, mailed to while it sleeps.
TEST(Loop, RunsOnAnotherThread) {
  auto loop = std::move(*make_loop());
  struct Sleep : Timer {
    std::atomic<bool> fired{false};
  } timer;
  timer.fire = [](Timer* t) { static_cast<Sleep*>(t)->fired = true; };
  loop->arm(&timer, loop->now_ns() + 1'000'000);
  std::thread runner([&] { loop->run(); });
  while (!timer.fired) std::this_thread::yield();
  struct Flag : Mail {
    std::atomic<bool> ran{false};
  } flag;
  flag.run = [](Mail* mail) { static_cast<Flag*>(mail)->ran = true; };
  for (int i = 0; i < 100; ++i) {
    flag.ran = false;
    loop->post(&flag);
    while (!flag.ran) std::this_thread::yield();
  }
  loop->stop();
  runner.join();
  EXPECT_TRUE(loop->abandoned());  // with its thread
}

// Nothing to do: no turns. The standing timeout may wake it for a timer that has moved away, but
// only once.
TEST(Loop, AnIdleLoopSleeps) {
  TestLoop loop;
  std::vector<int> order;
  NamedTimer moved(&order, 1), last(&order, 2);
  const uint64_t now = loop->now_ns();
  loop->arm(&moved, now + 5'000'000);
  loop->arm(&last, now + 50'000'000);
  loop.run_turns(1);
  loop->arm(&moved, now + 60'000'000'000);
  int turns = 0;
  loop.run_until([&] {
    ++turns;
    return !order.empty();
  });
  EXPECT_EQ(order, std::vector<int>{2});
  EXPECT_LE(turns, 5);
  loop->disarm(&moved);
}

TEST(Loop, NothingRunsAfterAbandon) {
  TestLoop loop;
  std::vector<int> order;
  auto timer = std::make_unique<NamedTimer>(&order, 1);
  auto hook = std::make_unique<TurnHook>();
  hook->run = [](TurnHook*) { FAIL(); };
  auto mail = std::make_unique<Mail>();
  mail->run = [](Mail*) { FAIL(); };
  loop->arm(timer.get(), 0);
  loop->post(mail.get());
  loop->add_turn_hook(hook.get());
  loop->abandon();
  EXPECT_TRUE(loop->abandoned());
  EXPECT_FALSE(timer->armed());
  loop->run();  // returns at once
  loop->arm(timer.get(), 0);
  loop->disarm(timer.get());
  loop->remove_turn_hook(hook.get());
  EXPECT_TRUE(order.empty());
}

TEST(Loop, AbandonFromACallbackEndsTheTurn) {
  auto loop = std::move(*make_loop());
  struct Task : Mail {
    Loop* loop;
    bool ran = false;
  } first, second;
  for (Task* task : {&first, &second}) {
    task->loop = loop.get();
    task->run = [](Mail* mail) {
      static_cast<Task*>(mail)->ran = true;
      static_cast<Task*>(mail)->loop->abandon();
    };
    loop->post(task);
  }
  TurnHook hook;
  hook.run = [](TurnHook*) { FAIL(); };
  loop->add_turn_hook(&hook);
  loop->run();
  EXPECT_TRUE(first.ran);
  EXPECT_FALSE(second.ran);
}

TEST(Loop, RandomNumbersDiffer) {
  TestLoop a, b;
  EXPECT_NE(a->random_u64(), b->random_u64());
  EXPECT_NE(a->random_u64(), a->random_u64());
  EXPECT_GT(a->wall_ns(), 1'600'000'000'000'000'000u);
  const uint64_t before = a->now_ns();
  EXPECT_LE(before, a->precise_now_ns());
}

}  // namespace
}  // namespace curve::io
