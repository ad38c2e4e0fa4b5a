// Options of an NBD connection, before requests. See nbd_session.h.
#include <algorithm>
#include <cassert>

#include "native/export/nbd_session.h"

namespace curve::exports {
namespace {

constexpr std::string_view kAllocation = "base:allocation";
constexpr uint32_t kAllocationId = 1;
constexpr uint32_t kNameBytesMax = 4096;

}  // namespace

bool NbdSession::take_option() {
  if (have().size() < nbd::kOptionHeaderBytes) return false;
  nbd::BigReader reader(have());
  if (reader.u64() != nbd::kOptionMagic) return fail("no option begins here: wrong magic"), false;
  const uint32_t option = reader.u32(), bytes = reader.u32();
  if (bytes > kOptionBytesMax) return fail("an option of more than 16 KiB"), false;
  if (have().size() < nbd::kOptionHeaderBytes + bytes) return false;
  const auto data = have().subspan(nbd::kOptionHeaderBytes, bytes);
  consume(nbd::kOptionHeaderBytes + bytes);
  on_option(option, data);
  return phase_ != Phase::kClosed;
}

void NbdSession::on_option(uint32_t option, std::span<const std::byte> data) {
  switch (option) {
    case nbd::kExportName:
      return option_export_name(data);
    case nbd::kAbort:
      reply_option(option, nbd::kAck);
      phase_ = Phase::kDraining;
      return;
    case nbd::kList:
      return option_list(data);
    case nbd::kInfo:
    case nbd::kGo:
      return option_info(option, data);
    case nbd::kStructuredReply:
      if (!data.empty())
        return reply_option_error(option, nbd::kErrorInvalid, "This option has no data.");
      structured_ = true;
      return reply_option(option, nbd::kAck);
    case nbd::kListMetaContext:
    case nbd::kSetMetaContext:
      return option_meta_context(option, data);
    default:
      return reply_option_error(option, nbd::kErrorUnsupported, "This option is not supported.");
  }
}

void NbdSession::reply_option(uint32_t option, uint32_t type, std::span<const std::byte> data) {
  std::vector<std::byte> head;
  nbd::BigWriter(head)
      .u64(nbd::kOptionReplyMagic)
      .u32(option)
      .u32(type)
      .u32(static_cast<uint32_t>(data.size()));
  transmit_.append(head);
  transmit_.append(data);
}

void NbdSession::reply_option_error(uint32_t option, uint32_t type, std::string_view sentence) {
  reply_option(option, type, std::as_bytes(std::span(sentence)));
}

uint16_t transmission_flags(bool read_only) {
  uint16_t flags = nbd::kHasFlags | nbd::kSendFlush | nbd::kSendFua | nbd::kSendTrim |
                   nbd::kSendWriteZeroes | nbd::kCanMultiConn;
  if (read_only) flags |= nbd::kReadOnly;
  return flags;
}

uint16_t NbdSession::flags_for(const NbdExport& what) const {
  uint16_t flags = transmission_flags(what.read_only || what.device->read_only());
  flags |= nbd::kSendFastZero;
  if (structured_) flags |= nbd::kSendDf;  // a read is answered in one piece anyway
  return flags;
}

void NbdSession::enter_transmission(const NbdExport& what) {
  export_ = what;
  allocation_ = structured_ && meta_allocation_ && meta_export_ == what.name;
  phase_ = Phase::kTransmission;
  loop_.disarm(&timeout_timer_);
}

// The old way: no error can be told, so an unknown name ends the connection.
void NbdSession::option_export_name(std::span<const std::byte> data) {
  const std::string_view name(reinterpret_cast<const char*>(data.data()), data.size());
  const NbdExport* what = sessions_.find(name);
  if (!what) return fail("the client asked for an export that is not there");
  scratch_.clear();
  nbd::BigWriter(scratch_).u64(what->device->size_bytes()).u16(flags_for(*what));
  if (!no_zeroes_) scratch_.resize(scratch_.size() + 124);
  transmit_.append(scratch_);
  enter_transmission(*what);
}

void NbdSession::option_info(uint32_t option, std::span<const std::byte> data) {
  nbd::BigReader reader(data);
  const std::string_view name = reader.text(reader.u32());
  const uint16_t count = reader.u16();
  bool wants_name = false, wants_description = false;
  for (uint16_t i = 0; i < count && reader.ok(); ++i) {
    const uint16_t info = reader.u16();
    wants_name |= info == nbd::kInfoName;
    wants_description |= info == nbd::kInfoDescription;
  }
  if (!reader.done() || name.size() > kNameBytesMax)
    return reply_option_error(option, nbd::kErrorInvalid, "Malformed request.");
  const NbdExport* what = sessions_.find(name);
  if (!what)
    return reply_option_error(option, nbd::kErrorUnknown, "There is no export of this name.");
  std::vector<std::byte> info;
  const auto send_info = [&] {
    reply_option(option, nbd::kInfoReply, info);
    info.clear();
  };
  nbd::BigWriter w(info);
  w.u16(nbd::kInfoExport).u64(what->device->size_bytes()).u16(flags_for(*what));
  send_info();
  if (wants_name) {
    w.u16(nbd::kInfoName).text(what->name);
    send_info();
  }
  if (wants_description && !what->description.empty()) {
    w.u16(nbd::kInfoDescription).text(what->description);
    send_info();
  }
  w.u16(nbd::kInfoBlockSize).u32(kUnitBytes).u32(kSectorBytes).u32(kRequestBytesMax);
  send_info();
  reply_option(option, nbd::kAck);
  if (option == nbd::kGo) enter_transmission(*what);
}

void NbdSession::option_list(std::span<const std::byte> data) {
  if (!data.empty())
    return reply_option_error(nbd::kList, nbd::kErrorInvalid, "This option has no data.");
  for (const NbdExport* what : sessions_.all()) {
    scratch_.clear();
    nbd::BigWriter(scratch_)
        .u32(static_cast<uint32_t>(what->name.size()))
        .text(what->name)
        .text(what->description);
    reply_option(nbd::kList, nbd::kServer, scratch_);
  }
  reply_option(nbd::kList, nbd::kAck);
}

void NbdSession::option_meta_context(uint32_t option, std::span<const std::byte> data) {
  const bool set = option == nbd::kSetMetaContext;
  if (!structured_) {
    return reply_option_error(option, nbd::kErrorInvalid,
                              "Structured replies have to be negotiated first.");
  }
  nbd::BigReader reader(data);
  const std::string_view name = reader.text(reader.u32());
  const uint32_t queries = reader.u32();
  bool found = !set && queries == 0;
  for (uint32_t i = 0; i < queries && reader.ok(); ++i) {
    const std::string_view query = reader.text(reader.u32());
    found |= query == kAllocation || (!set && query == "base:");
  }
  if (!reader.done()) return reply_option_error(option, nbd::kErrorInvalid, "Malformed request.");
  const NbdExport* what = sessions_.find(name);
  if (set) meta_allocation_ = false;
  if (!what)
    return reply_option_error(option, nbd::kErrorUnknown, "There is no export of this name.");
  if (set) {
    meta_allocation_ = found;
    meta_export_ = what->name;
  }
  if (found) {
    scratch_.clear();
    nbd::BigWriter(scratch_).u32(set ? kAllocationId : 0).text(kAllocation);
    reply_option(option, nbd::kMetaContextReply, scratch_);
  }
  reply_option(option, nbd::kAck);
}

}  // namespace curve::exports
