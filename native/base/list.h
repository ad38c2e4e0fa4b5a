// Intrusive doubly linked list. The node lives in the element; the list owns nothing and allocates
// nothing. Invariant: an element is in at most one list through one hook; it is unlinked before it
// dies. One thread.
#pragma once

#include <cassert>
#include <cstddef>

namespace curve::base {

struct ListHook {
  ListHook* next = nullptr;
  ListHook* previous = nullptr;
  bool linked() const { return next != nullptr; }
  void unlink() {
    if (!linked()) return;
    next->previous = previous;
    previous->next = next;
    next = previous = nullptr;
  }
};

// T derives from ListHook.
template <class T>
class List {
 public:
  List() { head_.next = head_.previous = &head_; }
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  bool empty() const { return head_.next == &head_; }
  T* front() { return empty() ? nullptr : static_cast<T*>(head_.next); }
  T* next(T* item) { return item->next == &head_ ? nullptr : static_cast<T*>(item->next); }
  void push_back(T* item) {
    assert(!item->linked());
    item->previous = head_.previous;
    item->next = &head_;
    head_.previous->next = item;
    head_.previous = item;
  }
  T* pop_front() {
    T* item = front();
    if (item) item->unlink();
    return item;
  }

 private:
  ListHook head_;
};

}  // namespace curve::base
